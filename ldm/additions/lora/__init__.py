"""LoRA and its relatives as additions: low-rank changes of a model's weights (Hu et al. 2022)."""

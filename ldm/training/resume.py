"""A run that goes on after an interruption as if there had been none."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from ldm.training.datamodule import DataModuleFromConfig
from ldm.training.sampling import Position, derived_seed, seed_all

TRAINING, VALIDATION = 0, 1


class ExactResume(pl.Callback):
    """Counts batches, and seeds every step by (seed, process, batch) instead of carrying generator states around.

    What a step draws (timesteps, noise, dropout) then depends on its place in the run alone: not on what was logged,
    validated or drawn in between, and not on how often the run was stopped. The count and the seed are the only state.
    """

    def __init__(self, seed: int) -> None:
        self.position = Position(seed)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(datamodule, DataModuleFromConfig):
            datamodule.position = self.position

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        seed_all(derived_seed(self.position.seed, TRAINING, trainer.global_rank, self.position.batches))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.position.batches += 1

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """The same draws in every validation: its loss then moves because of the weights only."""
        seed_all(derived_seed(self.position.seed, VALIDATION, trainer.global_rank, batch_idx))

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self.position.seed, "batches": self.position.batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.position.seed, self.position.batches = state_dict["seed"], state_dict["batches"]

"""LoRA files for a model, with random numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm.checkpoint import save_state_dict

RANK = 2
LAYERS = ("to_q", "to_k", "to_v", "to_out", "to_out.0")


def lora_tensors(model: Any, seed: int = 0, size: float = 0.3) -> dict[str, Tensor]:
    """kohya's tensors for the attention of a model's network and of its text encoder."""
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, Tensor] = {}
    for name, value in model.named_parameters():
        path = name.removesuffix(".weight")
        if not name.endswith(".weight") or not path.endswith(LAYERS) or value.dim() != 2:
            continue
        path = path.replace("model.diffusion_model.", "lora_unet_", 1).replace("cond_stage_model.", "lora_te_", 1)
        key = path.replace(".", "_")
        found[f"{key}.lora_up.weight"] = size * torch.randn(value.shape[0], RANK, generator=generator)
        found[f"{key}.lora_down.weight"] = size * torch.randn(RANK, value.shape[1], generator=generator)
        found[f"{key}.alpha"] = torch.tensor(float(RANK))
    return found


def write_lora(path: Path, model: Any, seed: int = 0, **more: Tensor) -> str:
    """A file of them; ``more`` are further tensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_state_dict({**lora_tensors(model, seed), **more}, path, metadata={"ss_output_name": f"made-{seed}"})
    return str(path)

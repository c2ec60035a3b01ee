"""``lightning.save: diff``: of a model that was trained, a file of what changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytorch_lightning as pl

from ldm.additions.lora.difference import full_differences
from ldm.checkpoint import read_state_dict
from ldm.checkpoint.lora.writing import write_lora

FILE = "difference.safetensors"


class DifferenceFile(pl.Callback):
    """Writes ``difference.safetensors`` at the end of a run: whole differences in half precision, read as a LoRA.

    Args:
        folder: the run's folder of checkpoints.
        base: the weights that the run began from.
    """

    def __init__(self, folder: str | os.PathLike[str], base: str | os.PathLike[str]) -> None:
        self.path, self.base = Path(folder) / FILE, Path(base)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            modules = full_differences(pl_module, read_state_dict(self.base))
            about = {"ss_network_module": "lycoris.kohya", "ss_network_args": '{"algo": "full"}'}
            about |= {"ss_steps": str(trainer.global_step), "ss_sd_model_name": "/".join(self.base.parts[-2:])}
            write_lora(self.path, modules, metadata=about)

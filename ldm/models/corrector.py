"""Training a corrector: what a UNet expects of its own drawings, without what it regularly gets wrong there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from ldm.util import instantiate_from_config

FLAT = 0.5  # squared shade under which a difference counts less than in proportion: nobody sees it


class CorrectorTraining(pl.LightningModule):
    """A ``Corrector`` learns from patches and the errors in them, in units of what one sees of an error.

    Args:
        corrector_config: node of a ``Corrector``.
        scheduler_config: step -> factor of the learning rate.
        monitor: what a checkpoint is judged by.
    """

    def __init__(
        self,
        corrector_config: Mapping[str, Any],
        scheduler_config: Mapping[str, Any] | None = None,
        monitor: str | None = None,
    ) -> None:
        super().__init__()
        self.corrector = instantiate_from_config(corrector_config)
        self.scheduler_config = scheduler_config
        self.monitor = monitor
        self.learning_rate = 1e-3  # main.py sets it

    def shades(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """How far off the shades of a batch's cells are, with the correction and without: means, in units of CIELAB.

        Args:
            batch: ``seen`` [..., D], ``error`` [..., 4 C], ``metric`` [..., C, C].
        """
        metric = batch["metric"].reshape(-1, *batch["metric"].shape[-2:])[0]
        scale = torch.linalg.cholesky(metric.double()).to(batch["error"])
        left = batch["error"] - self.corrector(batch["seen"]).float()
        after, before = (
            (one.unflatten(-1, (len(scale), -1)).transpose(-1, -2) @ scale).square().sum(-1).add(FLAT).sqrt().mean()
            for one in (left, batch["error"])
        )
        return after, before

    def next_command(self, folder: str) -> str:
        """What makes the file that a model's YAML names."""
        return f"python -m scripts.export_corrector {folder}/checkpoints/last.ckpt MODEL/corrector.safetensors"

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        loss, before = self.shades(batch)
        values = {"train/loss": loss.detach(), "train/uncorrected": before.detach()}
        self.log_dict(values, prog_bar=True, batch_size=len(batch["seen"]))
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            self.corrector.parameters(), lr=self.learning_rate, betas=(0.9, 0.99), weight_decay=0.02
        )
        if self.scheduler_config is None:
            return optimizer
        factor = instantiate_from_config(self.scheduler_config).schedule
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_lambda=factor)
        return [optimizer], [{"scheduler": scheduler, "interval": "step", "frequency": 1}]

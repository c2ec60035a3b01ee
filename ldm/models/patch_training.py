"""Training of small networks on patches of pictures of one's own, which put right what a model regularly gets wrong."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from ldm.util import instantiate_from_config

FLAT = 0.5  # squared shade under which a difference counts less than in proportion: nobody sees it


class PatchTraining(pl.LightningModule, abc.ABC):
    """What learns from how far off shades are, by AdamW.

    Args:
        scheduler_config: step -> factor of the learning rate.
        monitor: what a checkpoint is judged by.
    """

    before: str  # what the shades without the network's changes are logged as

    def __init__(self, scheduler_config: Mapping[str, Any] | None = None, monitor: str | None = None) -> None:
        super().__init__()
        self.scheduler_config = scheduler_config
        self.monitor = monitor
        self.learning_rate = 1e-3  # main.py sets it

    @abc.abstractmethod
    def shades(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """How far off a batch's shades are with the network's changes and without: means, in units of CIELAB."""

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        loss, before = self.shades(batch)
        values = {"train/loss": loss.detach(), f"train/{self.before}": before.detach()}
        self.log_dict(values, prog_bar=True, batch_size=len(next(iter(batch.values()))))
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.learning_rate, betas=(0.9, 0.99), weight_decay=0.02)
        if self.scheduler_config is None:
            return optimizer
        factor = instantiate_from_config(self.scheduler_config).schedule
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_lambda=factor)
        return [optimizer], [{"scheduler": scheduler, "interval": "step", "frequency": 1}]


def seen(squares: Tensor, counts: Tensor | None = None) -> Tensor:
    """The mean of differences of shades whose squares these are; of some that count more, what they count, likewise."""
    differences = (squares + FLAT).sqrt()
    return differences.mean() if counts is None else (differences * counts / counts.mean()).mean()

"""A small model and data set that draw noise, drop out, keep an average and use every hook that training needs."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ldm.lr_scheduler import LambdaLinearScheduler


class ToyPictures(Dataset):
    """Pictures [4,4,3] in [-1,1], with a random flip."""

    def __init__(self, size: int = 22, data_root: str = "") -> None:
        self.pictures = torch.randn(size, 4, 4, 3, generator=torch.Generator().manual_seed(0)).tanh()
        self.data_root = data_root

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> dict[str, Any]:
        picture = self.pictures[index]
        return {"image": picture.flip(1) if random.random() < 0.5 else picture, "index": index}


class CountedPictures(Dataset):
    """Twelve items, six pictures [16,16,3]; counts how often items are read in this process."""

    reads = 0

    def __init__(self, brightness: float = 1.0) -> None:
        self.brightness = brightness
        self.pictures = torch.rand(6, 16, 16, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> dict[str, Any]:
        type(self).reads += 1
        tokens = torch.arange(8) + index
        return {"image": self.pictures[index % 6] * self.brightness, "caption": tokens, "name": str(index)}


class ToyModel(pl.LightningModule):
    """Denoises; writes every loss to ``<log_file>.<rank>`` as it happens, so that a killed run leaves them."""

    learning_rate: float

    def __init__(
        self, log_file: str = "", delay: float = 0.0, interrupt_at: int = -1, personalization_config: Any = None
    ) -> None:
        super().__init__()
        first, last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)
        self.net = nn.Sequential(first, nn.SiLU(), nn.Dropout(0.2), last)
        self.frozen = nn.Linear(2, 2).requires_grad_(False).eval()
        self.register_buffer("average", torch.zeros(3))
        self.average: Tensor
        self.log_file = log_file
        self.delay = delay
        self.interrupt_at = interrupt_at

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        x = batch["image"].movedim(-1, 1)
        t = torch.rand(len(x), 1, 1, 1)
        noise = torch.randn_like(x)
        loss = (self.net(x * (1 - t) + noise * t) - noise).square().mean()
        self.log("train/loss", loss)
        self._write(loss, batch["index"].tolist())
        time.sleep(self.delay)
        if self.trainer.fit_loop.epoch_loop.total_batch_idx == self.interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        x = batch["image"].movedim(-1, 1)
        self.log("val/loss", (self.net(x + torch.randn_like(x)) - x).square().mean(), sync_dist=True)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.log("test/loss", (self.net(batch["image"].movedim(-1, 1))).square().mean())

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.average.mul_(0.9).add_(self.net.get_parameter("0.bias").detach()[:3], alpha=0.1)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.net.parameters(), lr=self.learning_rate)
        factor = LambdaLinearScheduler([3], f_min=[0.1], f_max=[1.0], f_start=[0.1], cycle_lengths=[40])
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def log_images(self, batch: dict[str, Tensor], split: str = "train", **kwargs: Any) -> dict[str, Tensor]:
        torch.rand(100)  # pictures that draw must not disturb the run
        return {"inputs": batch["image"].movedim(-1, 1), **{k: torch.zeros(1, 3, 4, 4) for k in kwargs}}

    def _write(self, loss: Tensor, indices: list[int]) -> None:
        if not self.log_file:
            return
        entry = {
            "step": self.trainer.global_step,
            "loss": loss.item(),
            "items": indices,
            "lr": self.trainer.optimizers[0].param_groups[0]["lr"],
            "average": self.average.tolist(),
            "weights": float(sum(p.detach().double().sum() for p in self.net.parameters())),
        }
        with Path(f"{self.log_file}.{self.global_rank}").open("a") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())

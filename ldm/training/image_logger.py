"""Pictures of what the model does while it trains: grids as files and in the loggers."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from torch import Tensor, nn

from ldm.util import atomic_write

GRID_COLUMNS = 4


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients for a while; then every submodule gets back the mode that it had."""
    modes = {child: child.training for child in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for child, mode in modes.items():
            child.training = mode


def grid_of(images: Tensor, columns: int = GRID_COLUMNS) -> Image.Image:
    """One picture out of a batch [N,C,H,W] in [0,1], C being 1 or 3, row by row."""
    images = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
    n, c, h, w = images.shape
    columns = min(columns, n)
    rows = math.ceil(n / columns)
    canvas = torch.zeros(rows * columns, c, h, w)
    canvas[:n] = images
    pixels = canvas.view(rows, columns, c, h, w).permute(0, 3, 1, 4, 2).reshape(rows * h, columns * w, c)
    return Image.fromarray((pixels.clamp(0, 1) * 255).round().byte().numpy())


class ImageLogger(pl.Callback):
    """Asks the model for pictures (``log_images(batch, split=..., **log_images_kwargs)``) from time to time.

    Args:
        batch_frequency: optimizer steps (or batches, see ``log_on_batch_idx``) between two sets of pictures.
        max_images: pictures of each kind.
        clamp: cut values to [-1,1].
        increase_log_steps: also at steps 1, 2, 4, 8, ... below ``batch_frequency``.
        rescale: the model's pictures are in [-1,1], not [0,1].
        disabled: no pictures at all.
        log_on_batch_idx: count batches of the epoch instead of steps of the run.
        log_first_step: also at step 0.
        log_images_kwargs: passed on to ``log_images``.
        folder: where the files go; the run folder's ``images`` when None.
    """

    def __init__(
        self,
        batch_frequency: int,
        max_images: int,
        clamp: bool = True,
        increase_log_steps: bool = True,
        rescale: bool = True,
        disabled: bool = False,
        log_on_batch_idx: bool = False,
        log_first_step: bool = False,
        log_images_kwargs: dict[str, Any] | None = None,
        folder: str | Path | None = None,
    ) -> None:
        self.batch_frequency = batch_frequency
        self.max_images = max_images
        self.clamp = clamp
        self.rescale = rescale
        self.disabled = disabled
        self.log_on_batch_idx = log_on_batch_idx
        self.log_first_step = log_first_step
        self.log_images_kwargs = dict(log_images_kwargs or {})
        self.folder = None if folder is None else Path(folder)
        self.extra_steps = {2**n for n in range(int(math.log2(batch_frequency)) + 1)} if increase_log_steps else set()
        self._done: tuple[str, int] | None = None

    def is_due(self, count: int) -> bool:
        """Whether pictures are wanted at this step."""
        return (count % self.batch_frequency == 0 or count in self.extra_steps) and (count > 0 or self.log_first_step)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.log_images(trainer, pl_module, batch, batch_idx, "train")

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx == 0 and trainer.global_step > 0:
            self.log_images(trainer, pl_module, batch, batch_idx, "val", due=True)

    def log_images(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int, split: str, due: bool | None = None
    ) -> None:
        """Draw, save and log, if it is time to and has not been done at this step (steps can have many batches)."""
        count = batch_idx if self.log_on_batch_idx else trainer.global_step
        due = self.is_due(count) if due is None else due
        draw = getattr(pl_module, "log_images", None)
        if self.disabled or not due or not trainer.is_global_zero or draw is None or self._done == (split, count):
            return
        self._done = (split, count)
        with evaluating(pl_module):
            pictures = draw(batch, split=split, **self.log_images_kwargs)
        for kind, images in pictures.items():
            if isinstance(images, Tensor) and images.ndim == 4:
                self._keep(trainer, split, kind, self._prepared(images), batch_idx)

    def _prepared(self, images: Tensor) -> Tensor:
        images = images[: self.max_images].detach().float().cpu()
        images = images.clamp(-1, 1) if self.clamp else images
        return (images + 1) / 2 if self.rescale else images

    def _keep(self, trainer: pl.Trainer, split: str, kind: str, images: Tensor, batch_idx: int) -> None:
        grid = grid_of(images)
        folder = self.folder or Path(trainer.default_root_dir) / "images"
        step, epoch = trainer.global_step, trainer.current_epoch
        with atomic_write(folder / split / f"{kind}_gs-{step:06}_e-{epoch:06}_b-{batch_idx:06}.png") as path:
            grid.save(path)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(f"{split}/{kind}", np.asarray(grid), step, dataformats="HWC")
            elif isinstance(logger, WandbLogger):
                logger.log_image(f"{split}/{kind}", [grid], step=step)

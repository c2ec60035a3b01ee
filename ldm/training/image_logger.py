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

from ldm.pictures.images import make_grid, save_image, tensor_to_image
from ldm.training.averages import averaged

GRID_COLUMNS = 4
READABLE = 112  # pixels that the words of a prompt need


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


def pictures_of(images: Tensor, rescale: bool = True) -> list[Image.Image]:
    """Pictures out of [N,C,H,W] or [C,H,W]; one channel is grey, of more than three the first three are shown.

    Args:
        images: in [-1,1], or in [0,1] when ``rescale`` is false; values beyond are cut.
    """
    images = images[None] if images.ndim == 3 else images
    images = (images if rescale else images * 2 - 1).detach().float().cpu()
    return [tensor_to_image(image[:3].expand(3, -1, -1)) for image in images]


def labels_of(drawn: dict[str, Any], images: Tensor, shown: int) -> list[str] | None:
    """The prompts among what was drawn, for pictures [B, C, H, W] of which each belongs to one; None without any."""
    prompts = drawn.get("conditioning")
    if not isinstance(prompts, list) or len(prompts) != len(images) or not all(isinstance(p, str) for p in prompts):
        return None
    return prompts[:shown]


def legible(pictures: list[Image.Image]) -> list[Image.Image]:
    """Pictures at a whole multiple of their size, so wide that a prompt's words fit below them unbroken."""
    factor = -(-READABLE // max(picture.width for picture in pictures))
    sizes = [(picture.width * factor, picture.height * factor) for picture in pictures]
    return [p.resize(size, Image.Resampling.NEAREST) for p, size in zip(pictures, sizes, strict=True)]


class ImageLogger(pl.Callback):
    """Asks the model for pictures (``log_images(batch, split=..., **log_images_kwargs)``) from time to time.

    Whatever the frequency, there are some after the first step of a start and at the end.

    Args:
        batch_frequency: optimizer steps (or batches, see ``log_on_batch_idx``) between two sets of pictures.
        max_images: pictures of each kind.
        clamp: accepted from old YAMLs; values beyond the range are always cut.
        increase_log_steps: also at steps 1, 2, 4, 8, ... below ``batch_frequency``.
        rescale: the model's pictures are in [-1,1], not [0,1].
        disabled: no pictures at all.
        log_on_batch_idx: count batches of the epoch instead of steps of the run.
        log_first_step: also at step 0.
        log_images_kwargs: passed on to ``log_images``.
        folder: where the files go; the run folder's ``images`` when None.
        log_all_val: pictures of every batch of a validation, not of its first one alone.
        enable_autocast: accepted from old YAMLs; pictures are drawn in the run's own precision.
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
        log_all_val: bool = False,
        enable_autocast: bool = True,
    ) -> None:
        self.log_all_val = log_all_val
        self.batch_frequency = batch_frequency
        self.max_images = max_images
        self.rescale = rescale
        self.disabled = disabled
        self.log_on_batch_idx = log_on_batch_idx
        self.log_first_step = log_first_step
        self.log_images_kwargs = dict(log_images_kwargs or {})
        self.folder = None if folder is None else Path(folder)
        self.extra_steps = {2**n for n in range(int(math.log2(batch_frequency)) + 1)} if increase_log_steps else set()
        self._done: dict[str, int] = {}  # the step of the last pictures of each split
        self._last: tuple[Any, int] | None = None  # the batch of the last step, and its number

    def is_due(self, count: int) -> bool:
        """Whether pictures are wanted at this step."""
        return (count % self.batch_frequency == 0 or count in self.extra_steps) and (count > 0 or self.log_first_step)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        first, self._last = self._last is None, (batch, batch_idx)
        self.log_images(trainer, pl_module, batch, batch_idx, "train", due=True if first else None)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._last is not None:
            self.log_images(trainer, pl_module, *self._last, "train", due=True)
            self._last = None

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if (batch_idx == 0 or self.log_all_val) and trainer.global_step > 0:
            self.log_images(trainer, pl_module, batch, batch_idx, "val", due=True)

    def log_images(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int, split: str, due: bool | None = None
    ) -> None:
        """Draw, save and log, if it is time to and has not been done at this step (steps can have many batches)."""
        count = batch_idx if self.log_on_batch_idx else trainer.global_step
        due = self.is_due(count) if due is None else due
        draw = getattr(pl_module, "log_images", None)
        once = split if split == "train" else f"{split}{batch_idx}"
        if self.disabled or not due or not trainer.is_global_zero or draw is None or self._done.get(once) == count:
            return
        self._done[once] = count
        with averaged(trainer, pl_module), evaluating(pl_module):
            drawn = draw(batch, split=split, **self.log_images_kwargs)
        for kind, images in drawn.items():
            if isinstance(images, Tensor) and images.ndim in (3, 4):
                shown = pictures_of(images[: self.max_images] if images.ndim == 4 else images, self.rescale)
                labels = labels_of(drawn, images, len(shown))
                grid = make_grid(shown if labels is None else legible(shown), GRID_COLUMNS, labels)
                self._keep(trainer, split, kind, grid, batch_idx)

    def _keep(self, trainer: pl.Trainer, split: str, kind: str, grid: Image.Image, batch_idx: int) -> None:
        folder = self.folder or Path(trainer.default_root_dir) / "images"
        step, epoch = trainer.global_step, trainer.current_epoch
        save_image(grid, folder / split / f"{kind}_gs-{step:06}_e-{epoch:06}_b-{batch_idx:06}.png")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(f"{split}/{kind}", np.asarray(grid), step, dataformats="HWC")
            elif isinstance(logger, WandbLogger):
                logger.log_image(f"{split}/{kind}", [grid], step=step)

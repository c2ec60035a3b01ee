"""Watching a request while it runs: each step with a small picture, each result as it is made, and a way to stop it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ldm.models.diffusion.loop import Snapshot
from ldm.pictures.images import tensor_to_image

log = logging.getLogger(__name__)

PREVIEW_CELLS = 16  # of a latent's longer side; a decoder makes little of fewer
Result = TypeVar("Result")


class Cancelled(Exception):  # noqa: N818 nothing went wrong
    """Whoever asked does not want the rest of it."""


@contextlib.contextmanager
def until_cancelled() -> Iterator[None]:
    """A block that ends quietly where its request is not wanted any more."""
    try:
        yield
    except Cancelled:
        log.info("ended before everything was finished, as was asked")


@dataclass(frozen=True, eq=False)
class Step:
    """A step that has been taken.

    Attributes:
        task: what is walked: "sampling", "inversion" or "training".
        number, total: of steps in this walk; ``number`` counts from 1.
        latent: the clean latents [B, C, h, w] that the network expects now; None where nothing is drawn.
    """

    task: str
    number: int
    total: int
    latent: Tensor | None = None
    model: Any = None

    @torch.no_grad()
    def preview(self) -> list[Image.Image]:
        """Small pictures of where it goes, one for each row; what a full decoding costs is saved by their size."""
        if self.latent is None:
            return []
        height, width = self.latent.shape[-2:]
        scale = min(1.0, PREVIEW_CELLS / max(height, width))
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        small = F.interpolate(self.latent, size=size, mode="area")
        return [tensor_to_image(image) for image in self.model.decode_first_stage(small)]


@dataclass(frozen=True)
class Watch(Generic[Result]):
    """Who watches a request; all of it is called in the request's own thread, while the model is held.

    Attributes:
        on_step: gets every step of every walk.
        on_result: gets every result as soon as it is finished (and saved).
        cancelled: asked after each step; True ends the request, and what is finished is kept. A ``threading.Event``
            serves by its ``is_set``.
    """

    on_step: Callable[[Step], None] | None = None
    on_result: Callable[[Result], None] | None = None
    cancelled: Callable[[], bool] | None = None

    def check(self) -> None:
        """Raises Cancelled when the request is not wanted any more."""
        if self.cancelled is not None and self.cancelled():
            raise Cancelled

    def result(self, made: Result) -> None:
        """Hand on what is finished."""
        if self.on_result is not None:
            self.on_result(made)

    def steps(self, model: Any, task: str) -> Callable[[Snapshot], None]:
        """The callback of a loop that walks for this request; it raises Cancelled when the rest is not wanted."""

        def after(step: Snapshot) -> None:
            if self.on_step is not None:
                self.on_step(Step(task, step.index + 1, step.total, step.x0, model))
            self.check()

        return after

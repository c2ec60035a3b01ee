"""Painting a part of a picture: what is kept is put back before each step; soft masks as a strength for each place.

Source: Levin & Fried 2023, Differential Diffusion (arXiv 2306.00950), algorithm 1; with masks of 0 and 1 it is what is
usually done with models that were not trained for in-painting.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ldm.models.diffusion.loop import Draw, Level


@dataclass(frozen=True)
class PaintWhere:
    """A change before each step: a place whose mask is v follows the noised picture until the share v of steps is left.

    Attributes:
        mask: [B or 1, 1, h, w] in [0, 1]; 1 is painted from the first step on, 0 never.
        x0: the clean latent [B or 1, C, h, w] that is kept elsewhere.
        draw: fresh standard normal noise [B, C, h, w].
        first: the index of the level that the walk begins at.
        steps: how many there are from there on.
    """

    mask: Tensor
    x0: Tensor
    draw: Draw
    first: int
    steps: int

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        left = self.steps - (level.index - self.first)
        return torch.where(self.painted(left), x, level.noised(self.x0, self.draw()))

    def finish(self, x: Tensor) -> Tensor:
        """What the walk came to, with the clean latent where no step was taken."""
        return torch.where(self.painted(1), x, self.x0)

    def painted(self, left: int) -> Tensor:
        """Where a step is taken that is the first of the last ``left``."""
        return self.mask * self.steps >= left - 0.5

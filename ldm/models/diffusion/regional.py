"""Predictions of several prompts put together in one picture, each in its own region, within every step.

Source: Bar-Tal et al. 2023 (MultiDiffusion), equation 5 with bootstrapping, whose weights here fall off softly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ldm.models.diffusion.guidance import expand_condition, tensors_of
from ldm.models.diffusion.loop import Denoiser, Schedule
from ldm.modules.diffusionmodules.levels import current_level
from ldm.util import UserError

SOFTNESS = 0.5  # cells of the latent in which a region's weight falls to a third of another's


@dataclass(frozen=True)
class View:
    """How one prompt sees the latent, and where its prediction counts.

    Attributes:
        denoiser: with guidance.
        cond: of the prompt; rows as many as pictures, or 1.
        weight: [h, w] in [0, 1]; those of all views sum to 1.
        shift: rows and columns that the latent is moved by before it is looked at, round the picture's edges; the
            prediction is moved back.
        alone: [h, w], 1 where the latent itself is seen while the view's region is started; None: everywhere.
    """

    denoiser: Denoiser
    cond: Any
    weight: Tensor
    shift: tuple[int, int] = (0, 0)
    alone: Tensor | None = None

    def predict(self, x: Tensor, t: Tensor, behind: Tensor | None = None) -> Tensor:
        """The prediction [B, C, h, w] for latents of that shape; ``behind`` [B, C, h, w] is seen outside of ``alone``.

        Raises:
            UserError: the condition has a picture, which does not move with the latent.
        """
        if behind is not None and self.alone is not None:
            x = torch.lerp(behind, x, self.alone.to(x))
        if self.shift == (0, 0):
            return self.denoiser.predict(x, t, self.cond)
        if any(tensor.dim() > 3 for tensor in tensors_of(self.cond)):
            raise UserError("this model is given a picture beside the prompt: its regions take --layout_view whole")
        down, right = self.shift
        seen = self.denoiser.predict(x.roll(self.shift, (2, 3)), t, expand_condition(self.cond, x.shape[0]))
        return seen.roll((-down, -right), (2, 3))


@dataclass(frozen=True)
class Backdrop:
    """What is seen around a region while it is started: flat colours under the noise that the picture began from.

    Attributes:
        colours: clean latents [K, C, 1, 1]; another one each step.
        noise: [B, C, h, w].
        steps: the first so many of the walk.
    """

    colours: Tensor
    noise: Tensor
    steps: int

    def behind(self, x: Tensor, schedule: Schedule, number: int) -> Tensor | None:
        """For the region of a number, at the level of now and as networks take it, like ``x``; None afterwards."""
        level = current_level()
        if level is None or level.index >= self.steps:
            return None
        colour = self.colours[(level.index + number) % len(self.colours)].to(x)
        return schedule.enter(level.noised(colour, self.noise.to(x)), level)


@dataclass(frozen=True)
class Regional:
    """A denoiser whose prediction is, at each place, that of the views which count there.

    It has their prompts' conditions: the one that ``predict`` is given is not looked at.
    """

    model: Denoiser
    views: Sequence[View]
    backdrop: Backdrop | None = None

    @property
    def schedule(self) -> Schedule:
        return self.model.schedule

    @property
    def device(self) -> torch.device:
        return self.model.device

    def predict(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        """The views' predictions [B, C, h, w], each times its weight."""
        out = torch.zeros_like(x, dtype=torch.float32)
        for number, view in enumerate(self.views):
            behind = None if self.backdrop is None else self.backdrop.behind(x, self.schedule, number)
            out += view.weight.to(out) * view.predict(x, t, behind)
        return out


def weights_of(distances: Sequence[Tensor], rest: bool) -> list[Tensor]:
    """The weights [h, w] of regions, and of the rest at the end if there is one; at each place they sum to 1.

    A softmax of -distance / SOFTNESS; the rest is everywhere at a rim. Without a rest each place belongs to the region
    nearest to it.

    Args:
        distances: [h, w] of each region, in cells, below 0 inside.
    """
    every = [*distances, torch.zeros_like(distances[0])] if rest else list(distances)
    return list(torch.softmax(-torch.stack(every) / SOFTNESS, dim=0))

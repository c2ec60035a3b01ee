"""EDICT (Wallace et al. 2022, arXiv 2211.12446): two coupled latents, whose steps are undone exactly.

A state is both latents side by side in the channels, [B, 2C, h, w], the one that is asked for first in front.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ldm.models.diffusion.loop import Denoise, Draw, Level, Schedule, State

MIXED = 0.93  # the share of its own in each latent's mean with the other (the paper's p)


def affine(here: Level, there: Level) -> tuple[float, float]:
    """(a, b) of the DDIM step a x + b eps between two levels."""
    a = there.signal / here.signal
    return a, there.noise - a * here.noise


@dataclass(frozen=True)
class Edict:
    """A step of sampling (section 4.2): each latent moves along the noise seen in the other, then both are mixed."""

    mixed: float = MIXED

    def levels(self, schedule: Schedule, steps: int) -> list[Level]:
        return schedule.levels(steps, "leading")

    def step(self, state: State, here: Level, there: Level, denoise: Denoise, draw: Draw) -> State:
        """From (y, x) [B, 2C, h, w] at ``here`` to the two at ``there``; asks the network twice."""
        y, x = state.x.chunk(2, dim=1)
        a, b = affine(here, there)
        first = denoise(y, here)
        x = a * x + b * first.eps
        y = a * y + b * denoise(x, here).eps
        x = torch.lerp(y, x, self.mixed)
        y = torch.lerp(x, y, self.mixed)
        return State(torch.cat([y, x], dim=1), first.x0)


@dataclass(frozen=True)
class EdictInversion:
    """What undoes ``Edict``: upwards, asking the network where a step arrives."""

    mixed: float = MIXED

    def levels(self, schedule: Schedule, steps: int) -> list[Level]:
        return schedule.upwards(steps)

    def step(self, state: State, here: Level, there: Level, denoise: Denoise, draw: Draw) -> State:
        """From (y, x) [B, 2C, h, w] at ``here`` to the two at ``there``, of which the network is asked for y last."""
        y, x = state.x.chunk(2, dim=1)
        a, b = affine(there, here)
        y = (y - (1 - self.mixed) * x) / self.mixed
        x = (x - (1 - self.mixed) * y) / self.mixed
        y = (y - b * denoise(x, there).eps) / a
        last = denoise(y, there)
        x = (x - b * last.eps) / a
        return State(torch.cat([y, x], dim=1), last.x0)


def doubled(latents: Tensor) -> Tensor:
    """The state [B, 2C, h, w] whose two latents are both the one given [B, C, h, w]."""
    return torch.cat([latents, latents], dim=1)

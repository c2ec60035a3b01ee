"""BDIA (Zhang et al. 2023, arXiv 2307.10829): a step of DDIM from the level before the last, which is undone exactly.

z' = z_before - (1 - c) (z_before - z) - c up(z) + down(z), where up and down are the moves of DDIM's steps from the
latent z to the level before and to the next one, and c is the paper's gamma. Of three neighbours any two determine the
third, from one call of the network at the middle one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ldm.models.diffusion.loop import Denoise, Draw, Estimate, Level, Schedule, State
from ldm.models.diffusion.samplers.ddim import transfer

BACKWARDS = 0.96  # the paper's gamma: how far the last step is taken back along its other end's noise


def move(z: Tensor, estimate: Estimate, there: Level) -> Tensor:
    """How far DDIM's step to a level moves a latent."""
    return transfer(estimate, there) - z


@dataclass(frozen=True)
class Bdia:
    """A step of sampling; a state is the latent and the one before it in the channels, [B, 2C, h, w].

    Attributes:
        before: the level of the second latent where a walk begins.
    """

    before: Level
    backwards: float = BACKWARDS

    def levels(self, schedule: Schedule, steps: int) -> list[Level]:
        return schedule.levels(steps, "leading")

    def step(self, state: State, here: Level, there: Level, denoise: Denoise, draw: Draw) -> State:
        z, z_before = state.x.chunk(2, dim=1)
        (before,) = state.memory or (self.before,)
        estimate = denoise(z, here)
        taken_back = torch.lerp(z_before - z, move(z, estimate, before), self.backwards)
        after = z_before - taken_back + move(z, estimate, there)
        return State(torch.cat([after, z], dim=1), estimate.x0, (here,))


@dataclass(frozen=True)
class BdiaInversion:
    """What undoes ``Bdia``, upwards; the first step is DDIM's. ``State.memory`` is (latent below, its level)."""

    backwards: float = BACKWARDS

    def levels(self, schedule: Schedule, steps: int) -> list[Level]:
        return schedule.upwards(steps)

    def step(self, state: State, here: Level, there: Level, denoise: Denoise, draw: Draw) -> State:
        estimate = denoise(state.x, here)
        if not state.memory:
            return State(transfer(estimate, there), estimate.x0, (state.x, here))
        below, its_level = state.memory
        change = below - state.x - move(state.x, estimate, its_level)
        upwards = change / self.backwards + move(state.x, estimate, there)
        return State(state.x + upwards, estimate.x0, (state.x, here))

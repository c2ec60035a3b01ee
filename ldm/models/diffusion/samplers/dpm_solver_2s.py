"""Ancestral DPM-Solver++(2S) steps (Lu et al. 2022, arXiv 2211.01095, algorithm 1): second order, two calls a step."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

from ldm.models.diffusion.loop import Denoise, Draw, Level, Schedule, State
from ldm.models.diffusion.samplers.euler import Ancestral


@dataclass(frozen=True)
class DPMSolver2S(Ancestral):
    """Each step asks a second time half-way in lambda = -ln(sigma); fresh noise comes after it.

    The step to no noise is Euler's.
    """

    def levels(self, schedule: Schedule, steps: int) -> list[Level]:
        """The levels, each with the middle of its step as ``via``."""
        levels = schedule.levels(steps, "half_open")
        middles = [self._middle(schedule, here, there) for here, there in itertools.pairwise(levels)]
        return [*(replace(here, via=middle) for here, middle in zip(levels, middles, strict=False)), levels[-1]]

    def _middle(self, schedule: Schedule, here: Level, there: Level) -> Level | None:
        down, _ = self.parted(here, there)
        return replace(schedule.at(math.sqrt(here.sigma * down)), index=here.index) if down > 0 else None

    def step(self, state: State, here: Level, there: Level, denoise: Denoise, draw: Draw) -> State:
        """y' = (down / sigma) y + (1 - down / sigma) x0(y_mid, mid) with y = x / signal; see ``StepRule``."""
        x0 = denoise(state.x, here).x0
        down, up = self.parted(here, there)
        y, target = state.x / here.signal, x0
        if here.via is not None:
            part = here.via.sigma / here.sigma
            target = denoise(here.via.signal * (part * y + (1 - part) * x0), here.via).x0
        part = down / here.sigma
        x = there.signal * (part * y + (1 - part) * target)
        return State(self.freshened(x, there, up, draw), x0)

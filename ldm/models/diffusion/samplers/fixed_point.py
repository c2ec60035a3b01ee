"""DDIM inversion whose steps are undone by DDIM's: the noise is that of the level where a step arrives."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ldm.models.diffusion.loop import Denoise, Draw, Level, Schedule, State
from ldm.models.diffusion.samplers.anderson import next_try
from ldm.models.diffusion.samplers.ddim import transfer
from ldm.modules.diffusionmodules.levels import Estimate


@dataclass(frozen=True)
class FixedPoint:
    """A step upwards that solves x' = signal' (x - noise eps(x')) / signal + noise' eps(x') by iteration.

    DDIM's step down from x' then leads to x (Pan et al. 2023, arXiv 2309.04907, which mixes the last two tries; here
    all of a step's are). It begins with DDIM's own inversion, which takes eps(x); ``rounds`` 0 leaves it at that. A
    step beyond the walk (index -1), which no sampling undoes, is DDIM's.
    """

    rounds: int = 0

    def levels(self, schedule: Schedule, steps: int) -> list[Level]:
        return schedule.upwards(steps)

    def step(self, state: State, here: Level, there: Level, denoise: Denoise, draw: Draw) -> State:
        estimate = denoise(state.x, here)
        x = transfer(estimate, there)
        tried, images = list[Tensor](), list[Tensor]()
        for _ in range(self.rounds if there.index >= 0 else 0):
            eps = denoise(x, there).eps
            tried.append(x)
            images.append(transfer(Estimate((state.x - here.noise * eps) / here.signal, eps), there))
            x = next_try(tried, images)
        return State(x, estimate.x0)

"""DDIM inversion whose steps are undone by DDIM's: the noise is that of the level where a step arrives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ldm.models.diffusion.guidance import expand_condition
from ldm.models.diffusion.loop import Denoise, Draw, Level, Schedule, Snapshot, State, estimator, run
from ldm.models.diffusion.samplers import ddim
from ldm.models.diffusion.samplers.ddim import transfer
from ldm.modules.diffusionmodules.levels import Estimate


@dataclass(frozen=True)
class FixedPoint:
    """A step upwards that solves x' = signal' (x - noise eps(x')) / signal + noise' eps(x') by iteration.

    DDIM's step down from x' then leads to x (Pan et al. 2023, arXiv 2309.04907, without acceleration). It begins with
    DDIM's own inversion, which takes eps(x); ``rounds`` 0 leaves it at that. A step beyond the walk (index -1), which
    no sampling undoes, is DDIM's.
    """

    rounds: int = 0

    def levels(self, schedule: Schedule, steps: int) -> list[Level]:
        return schedule.upwards(steps)

    def step(self, state: State, here: Level, there: Level, denoise: Denoise, draw: Draw) -> State:
        estimate = denoise(state.x, here)
        x = transfer(estimate, there)
        for _ in range(self.rounds if there.index >= 0 else 0):
            eps = denoise(x, there).eps
            x = transfer(Estimate((state.x - here.noise * eps) / here.signal, eps), there)
        return State(x, estimate.x0)


@torch.no_grad()
def invert(
    denoiser: Any,
    latent: Tensor,
    cond: Any,
    *,
    steps: int,
    rounds: int = 0,
    callback: Callable[[Snapshot], None] | None = None,
    progress: bool = False,
) -> Tensor:
    """The noise [B, C, h, w] of a latent, as ``ldm.models.diffusion.samplers.ddim.invert``, in refined steps.

    A step asks the network ``rounds`` times more.

    Raises:
        UserError: the number of steps does not fit the schedule.
    """
    if rounds == 0:
        return ddim.invert(denoiser, latent, cond, steps=steps, callback=callback, progress=progress)
    rule = FixedPoint(rounds)
    denoise = estimator(denoiser, expand_condition(cond, latent.shape[0]))
    levels = rule.levels(denoiser.schedule, steps)
    none = torch.zeros_like(latent)  # nothing is drawn
    return run(rule, levels, latent, denoise, lambda: none, callback=callback, progress=progress, label="inverting")

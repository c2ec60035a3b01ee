"""Euler steps in the noise-to-signal ratio sigma (Karras et al. 2022, algorithm 1), plain, churned and ancestral.

With y = x / signal, the probability flow is dy/dsigma = e, so an Euler step from sigma to sigma' gives
y' = x0 + sigma' e: in the schedule's own scale that is DDIM's transfer. What differs from DDIM is the path: levels from
the end of the schedule to timestep 0, evenly spaced, and a last step to no noise at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor

from ldm.models.diffusion.loop import Denoise, Draw, Level, Schedule, State
from ldm.models.diffusion.samplers.ddim import transfer
from ldm.modules.diffusionmodules.schedule import posterior_spread

MOST_CHURN = math.sqrt(2) - 1  # of sigma


@dataclass(frozen=True)
class Churn:
    """Fresh noise before a step, which then begins at the level that it leads to; ``s_churn`` 0 is none.

    Attributes:
        s_churn: of a whole walk, in units of sigma.
        s_tmin, s_tmax: the sigmas between which there is some.
        s_noise: the deviation of the fresh noise.
    """

    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = math.inf
    s_noise: float = 1.0

    def levels(self, schedule: Schedule, steps: int) -> list[Level]:
        """Evenly spaced levels, each with the noisier one ``via`` which its step goes, where there is churn."""
        levels = schedule.levels(steps, "linspace")
        more = 1 + min(self.s_churn / max(len(levels) - 1, 1), MOST_CHURN)
        if more == 1:
            return levels
        churned = [self.s_tmin <= level.sigma <= self.s_tmax and level.noise > 0 for level in levels]
        return [
            replace(level, via=replace(schedule.at(level.sigma * more), index=level.index)) if some else level
            for level, some in zip(levels, churned, strict=True)
        ]

    def begin(self, x: Tensor, here: Level, draw: Draw) -> tuple[Tensor, Level]:
        """A latent and its level after the fresh noise of a step, of which only where there is some is any drawn."""
        if here.via is None:
            return x, here
        spread = self.s_noise * math.sqrt(here.via.sigma**2 - here.sigma**2)
        return here.via.signal * (x / here.signal + spread * draw()), here.via


@dataclass(frozen=True)
class Euler(Churn):
    """Euler steps; timesteps are evenly spaced from T-1 to 0 and rounded to whole ones."""

    def step(self, state: State, here: Level, there: Level, denoise: Denoise, draw: Draw) -> State:
        """x' = signal' x0 + noise' e; see ``StepRule``."""
        x, here = self.begin(state.x, here, draw)
        estimate = denoise(x, here)
        return State(transfer(estimate, there), estimate.x0)


@dataclass(frozen=True)
class Ancestral:
    """What ancestral steps have in common: after each, fresh noise in place of a part of what is left.

    Attributes:
        eta: how much of it, 1 as the DDPM posterior has; 0 is without.
        s_noise: the deviation of the fresh noise.
    """

    eta: float = 1.0
    s_noise: float = 1.0

    def parted(self, here: Level, there: Level) -> tuple[float, float]:
        """The sigma that a step goes down to, and that of the fresh noise behind it."""
        spread = self.eta * float(posterior_spread(here.signal, here.noise, there.signal, there.noise)) / there.signal
        up = min(spread, there.sigma)
        return math.sqrt(max(there.sigma**2 - up**2, 0.0)), up

    def freshened(self, x: Tensor, there: Level, up: float, draw: Draw) -> Tensor:
        """A latent with fresh noise of sigma ``up``; it is drawn at every step, the last included."""
        if self.eta == 0:
            return x
        fresh = draw()
        return x if up == 0 else x + there.signal * self.s_noise * up * fresh


@dataclass(frozen=True)
class EulerAncestral(Ancestral):
    """Euler steps which replace as much noise as the DDPM posterior does, at each step but the last."""

    def levels(self, schedule: Schedule, steps: int) -> list[Level]:
        return schedule.levels(steps, "linspace")

    def step(self, state: State, here: Level, there: Level, denoise: Denoise, draw: Draw) -> State:
        """x' = signal' (x0 + down e + up z), down^2 + up^2 = sigma'^2; see ``StepRule``."""
        estimate = denoise(state.x, here)
        down, up = self.parted(here, there)
        x = there.signal * (estimate.x0 + down * estimate.eps)
        return State(self.freshened(x, there, up, draw), estimate.x0)

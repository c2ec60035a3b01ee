"""Euler and ancestral Euler steps in the noise-to-signal ratio sigma (Karras et al. 2022, algorithm 1 without churn).

With y = x / signal, the probability flow is dy/dsigma = e, so an Euler step from sigma to sigma' gives
y' = x0 + sigma' e: in the schedule's own scale that is DDIM's transfer. What differs from DDIM is the path: levels from
the end of the schedule to timestep 0, evenly spaced, and a last step to no noise at all.
"""

from __future__ import annotations

from dataclasses import dataclass

from ldm.models.diffusion.loop import Level, Schedule
from ldm.models.diffusion.samplers.ddim import DDIM


@dataclass(frozen=True)
class Euler(DDIM):
    """Euler steps; timesteps are evenly spaced from T-1 to 0 and rounded to whole ones."""

    def levels(self, schedule: Schedule, steps: int) -> list[Level]:
        return schedule.levels(steps, "linspace")


@dataclass(frozen=True)
class EulerAncestral(Euler):
    """Euler steps which replace as much noise as the DDPM posterior does, at each step but the last."""

    eta: float = 1.0

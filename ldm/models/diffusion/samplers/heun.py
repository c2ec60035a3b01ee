"""Heun's method in sigma = noise / signal (Karras et al. 2022, algorithms 1 and 2): two network calls a step."""

from __future__ import annotations

from dataclasses import dataclass

from ldm.models.diffusion.loop import Denoise, Draw, Level, State
from ldm.models.diffusion.samplers.euler import Churn


@dataclass(frozen=True)
class Heun(Churn):
    """An Euler step, then the same step again with the mean of the slopes at its two ends.

    With y = x / signal the slope dy/dsigma is the noise. The step to no noise is Euler's.
    """

    def step(self, state: State, here: Level, there: Level, denoise: Denoise, draw: Draw) -> State:
        """y' = y + (sigma' - sigma) (e(y) + e(y')) / 2; see ``StepRule``."""
        x, here = self.begin(state.x, here, draw)
        x0, slope = denoise(x, here)
        y, width = x / here.signal, there.sigma - here.sigma
        x = there.signal * (y + width * slope)
        if there.noise > 0:
            x = there.signal * (y + width * (slope + denoise(x, there).eps) / 2)
        return State(x, x0)

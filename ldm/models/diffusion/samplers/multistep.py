"""Linear multistep steps in sigma = noise / signal: one network call a step, of an order up to that of its memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.polynomial import Polynomial

from ldm.models.diffusion.loop import Denoise, Draw, Level, Schedule, State


def coefficients(sigmas: Sequence[float], arrival: float) -> list[float]:
    """Weights of the slopes at ``sigmas``, the newest first, in a step from the first of them to ``arrival``.

    Each is the integral over the step of the Lagrange polynomial that is 1 at its sigma and 0 at the others.
    """
    found = []
    for j, own in enumerate(sigmas):
        basis = Polynomial([1.0])
        for k, other in enumerate(sigmas):
            if k != j:
                basis *= Polynomial([-other, 1.0]) / (own - other)
        antiderivative = basis.integ()
        found.append(float(antiderivative(arrival) - antiderivative(sigmas[0])))
    return found


@dataclass(frozen=True)
class LinearMultistep:
    """A step along the polynomial through the last ``order`` slopes (Adams-Bashforth on any levels).

    ``State.memory`` holds (sigma, slope), newest first.
    """

    order: int = 4

    def levels(self, schedule: Schedule, steps: int) -> list[Level]:
        return schedule.levels(steps, "linspace")

    def step(self, state: State, here: Level, there: Level, denoise: Denoise, draw: Draw) -> State:
        """y' = y + sum of c_j e_j with y = x / signal; see ``StepRule``."""
        x0, slope = denoise(state.x, here)
        known = ((here.sigma, slope), *state.memory)[: self.order]
        weights = coefficients([sigma for sigma, _ in known], there.sigma)
        change = sum(weight * e for weight, (_, e) in zip(weights, known, strict=True))
        return State(there.signal * (state.x / here.signal + change), x0, known)

"""DPM-Solver++(2M), Lu et al. 2022 (arXiv 2211.01095), algorithm 2: second order, one network call a step."""

from __future__ import annotations

import math

from ldm.models.diffusion.classic import ClassicSampler
from ldm.models.diffusion.loop import Denoise, Draw, Level, Schedule, State, StepRule


def half_log_snr(level: Level) -> float:
    """lambda = log(signal / noise)."""
    return math.log(level.signal / level.noise)


class DPMSolver2M:
    """Steps in lambda that extrapolate the predicted clean latent from its last two values.

    ``State.memory`` is (previous x0, its level). The first step and the one to no noise are of first order.
    """

    def levels(self, schedule: Schedule, steps: int) -> list[Level]:
        return schedule.levels(steps, "half_open")

    def step(self, state: State, here: Level, there: Level, denoise: Denoise, draw: Draw) -> State:
        """x' = (noise' / noise) x + signal' (1 - exp(-h)) D, D = x0 + (x0 - x0_before) / (2 r); see ``StepRule``.

        h is the step in lambda = log(signal / noise), r the step before in units of h.
        """
        x0 = denoise(state.x, here).x0
        decay = (there.noise * here.signal) / (here.noise * there.signal)  # exp(-h), 0 when the noise ends
        target = x0
        if state.memory and decay > 0:
            x0_before, before = state.memory
            ratio = (half_log_snr(here) - half_log_snr(before)) / -math.log(decay)
            target = x0 + (x0 - x0_before) / (2 * ratio)
        x = there.noise / here.noise * state.x + there.signal * (1 - decay) * target
        return State(x, x0, (x0, here))


class DPMSolverSampler(ClassicSampler):
    """DPM-Solver++(2M) under the class name of old scripts."""

    def rule(self, eta: float) -> StepRule:
        """DPM-Solver++(2M).

        Raises:
            ValueError: ``eta`` is not 0.
        """
        if eta != 0:
            raise ValueError("DPM-Solver++(2M) is deterministic: ddim_eta must be 0")
        return DPMSolver2M()

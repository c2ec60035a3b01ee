"""PLMS, the pseudo linear multistep method (Liu et al. 2022, eq. 12 and 13), and the sampler class of old scripts."""

from __future__ import annotations

from dataclasses import replace

from ldm.models.diffusion.classic import ClassicSampler
from ldm.models.diffusion.loop import Denoise, Draw, Estimate, Level, Schedule, State, StepRule
from ldm.models.diffusion.samplers.ddim import transfer

# Adams-Bashforth: weights of the newest and the older noise estimates, by how many older ones there are.
ADAMS_BASHFORTH = {
    1: (3 / 2, -1 / 2),
    2: (23 / 12, -16 / 12, 5 / 12),
    3: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}
MEMORY = 3


class PLMS:
    """A DDIM transfer along a combination of the last four noise estimates; deterministic.

    ``State.memory`` holds the older estimates, newest first. The first step asks the network twice (improved Euler).
    """

    def levels(self, schedule: Schedule, steps: int) -> list[Level]:
        levels = schedule.levels(steps, "leading")
        # The first step asks at its arrival too; with one step only, that is still told the last timestep.
        return [*levels[:-1], replace(levels[-1], told=levels[-2].told)]

    def step(self, state: State, here: Level, there: Level, denoise: Denoise, draw: Draw) -> State:
        """Equation 12 once three older estimates are there, fewer of them before that; see ``StepRule``."""
        estimate = denoise(state.x, here)
        older = state.memory
        if older:
            weights = ADAMS_BASHFORTH[len(older)]
            eps = sum(w * e for w, e in zip(weights, (estimate.eps, *older), strict=True))
        elif there.noise == 0:  # nothing can be asked where there is no noise
            eps = estimate.eps
        else:
            eps = (estimate.eps + denoise(transfer(estimate, there), there).eps) / 2
        x0 = (state.x - here.noise * eps) / here.signal
        return State(transfer(Estimate(x0, eps), there), x0, (estimate.eps, *older)[:MEMORY])


class PLMSSampler(ClassicSampler):
    """The PLMS sampler of old scripts."""

    def rule(self, eta: float) -> StepRule:
        """PLMS.

        Raises:
            ValueError: ``eta`` is not 0.
        """
        if eta != 0:
            raise ValueError("PLMS is deterministic: ddim_eta must be 0")
        return PLMS()

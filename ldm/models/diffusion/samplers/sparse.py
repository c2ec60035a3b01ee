"""DDIM along all levels of a walk, of which the network is asked at some: in between its noise is carried on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ldm.models.diffusion.loop import Denoise, Draw, Estimate, Level, State
from ldm.models.diffusion.samplers.ddim import DDIM


def evenly_among(first: int, last: int, count: int) -> frozenset[int]:
    """At most ``count`` (2 or more) of the indices from ``first`` to ``last``, evenly spaced, both ends among them."""
    return frozenset(round(place) for place in np.linspace(first, last, max(count, 2)).tolist())


@dataclass(frozen=True)
class SparseDDIM(DDIM):
    """DDIM in either direction; at levels that are not ``asked`` the noise lies on the line through the last two.

    The line is one in the index of the level. ``State.memory`` holds (level, noise), newest first. Where nothing is
    known yet the network is asked.
    """

    asked: frozenset[int] = frozenset()

    def step(self, state: State, here: Level, there: Level, denoise: Denoise, draw: Draw) -> State:
        if here.index not in self.asked and state.memory:
            eps = carried_on(state.memory, here)
            estimate, known = Estimate((state.x - here.noise * eps) / here.signal, eps), state.memory
        else:
            estimate = denoise(state.x, here)
            known = ((here, estimate.eps), *state.memory)[:2]
        after = super().step(state, here, there, lambda x, level: estimate, draw)
        return State(after.x, after.x0, known)


def carried_on(known: tuple[tuple[Level, Tensor], ...], here: Level) -> Tensor:
    """The noise [B, C, h, w] at a level after the last one or two at which it is known."""
    (last, eps), *older = known
    if not older:
        return eps
    before, eps_before = older[0]
    return eps + (here.index - last.index) / (last.index - before.index) * (eps - eps_before)

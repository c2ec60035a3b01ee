"""Noise levels, and what the loop, samplers and attention modes know of a schedule.

A latent at a level is x = signal x0 + noise e. With signal^2 + noise^2 = 1 that is the scale of Ho et al. 2020, with
signal 1 and noise sigma that of Karras et al. 2022; everything that walks along levels works for both.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol

from torch import Tensor

from ldm.util import UserError

# How a table's timesteps are spread; a schedule with one list of levels of its own need not tell them apart.
#   leading    DDIM's: whole strides counted from 1, the last step goes to the level of timestep 0
#   linspace   from the last timestep to 0, then to no noise
#   half_open  likewise, without 0
#   karras     sigma = noise / signal spaced as powers of 7 (Karras et al. 2022, equation 5), then no noise
Spacing = Literal["leading", "linspace", "half_open", "karras"]


@dataclass(frozen=True)
class Level:
    """A noise level of a walk.

    Attributes:
        told: what the network is told: a whole number for a table of betas, for others any float, also below 0.
        signal, noise: the factors of the clean latent and of its noise.
        index: the place in the whole walk, 0 the noisiest. Walking up, or along a part, keeps it; so it says which
            level is meant where two tell the network the same. A level outside of a walk has its timestep here.
        via: another level at which a step from here asks, where its rule wants one: between this and the next, or a
            noisier one. A level without noise is asked as this one.
    """

    told: float
    signal: float
    noise: float
    index: int = 0
    via: Level | None = None

    @property
    def sigma(self) -> float:
        """noise / signal."""
        return self.noise / self.signal

    def noised(self, x0: Tensor, noise: Tensor) -> Tensor:
        """A clean latent [B, C, h, w] with noise of the same shape, at this level."""
        return self.signal * x0 + self.noise * noise


CLEAN = Level(told=0, signal=1.0, noise=0.0)


class Estimate(NamedTuple):
    """What the network believes about a noisy latent: the clean one and the noise, both [B, C, h, w] float32."""

    x0: Tensor
    eps: Tensor


class Schedule(Protocol):
    """The noise levels that a network knows, and how it is asked at one of them."""

    def levels(self, steps: int, spacing: Spacing = "leading") -> list[Level]:
        """The levels of a walk in so many steps, the noisiest first; the last is where the final step arrives.

        Raises:
            UserError: there is no such walk.
        """

    def upwards(self, steps: int) -> list[Level]:
        """The levels of ``levels(steps)`` at which the network is asked, upwards, and where the last step arrives.

        Where the lowest of them is far from clean, a level without noise is in front of them.

        Raises:
            UserError: there is no such walk.
        """

    def at(self, sigma: float) -> Level:
        """The level of noise / signal = ``sigma``, outside of any walk."""

    def enter(self, x: Tensor, level: Level) -> Tensor:
        """A latent [B, C, h, w] at a level as the network takes it, for example scaled to unit variance."""

    def tell(self, level: Level, x: Tensor) -> Tensor:
        """What the network is told, [B] for the rows of ``x``, on its device."""

    def estimate(self, out: Tensor, x: Tensor, level: Level) -> Estimate:
        """What the network's output ``out`` for the latent ``x`` (before ``enter``) at a level says.

        Shapes: both [B, C, h, w].
        """


def numbered(levels: Sequence[Level]) -> list[Level]:
    """The levels of a whole walk, the noisiest first, with their indices."""
    return [replace(level, index=index) for index, level in enumerate(levels)]


def index_among(told: Mapping[int, float], index: int | None, number: float) -> int | None:
    """Which of some levels, given as what each index tells, is the one that has an index and tells a number.

    It is the same index where that tells the number. Otherwise, in a walk of other steps or outside of any, it is the
    one that tells it; None without any.

    Raises:
        UserError: several tell it.
    """
    if index is not None and told.get(index) == number:
        return index
    found = [other for other, its in told.items() if its == number]
    if len(found) > 1:
        raise UserError(
            f"the network is told {number:g} at {len(found)} levels: which is meant is known only in their own walk"
        )
    return found[0] if found else None


_current: ContextVar[Level | None] = ContextVar("level", default=None)


@contextlib.contextmanager
def at_level(level: Level) -> Iterator[None]:
    """Within the block, networks are asked at this level; attention modes look for it here."""
    token = _current.set(level)
    try:
        yield
    finally:
        _current.reset(token)


def current_level() -> Level | None:
    """The level at which a network is being asked; None where nobody has said it."""
    return _current.get()

"""The one denoising loop: a step rule walks a latent along a list of noise levels.

Every rule works on latents in the schedule's own scale, x = signal * x0 + noise * e, so that rules, in-painting and
callbacks fit together whichever coordinates a paper prefers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ldm.modules.diffusionmodules.levels import CLEAN, Estimate, Level, Schedule, at_level
from ldm.util import UserError

__all__ = [
    "CLEAN",
    "Before",
    "Denoise",
    "Denoiser",
    "Draw",
    "Estimate",
    "Level",
    "Schedule",
    "Snapshot",
    "State",
    "StepRule",
    "ask",
    "estimator",
    "first_levels",
    "in_painting",
    "last_levels",
    "run",
]


class Denoiser(Protocol):
    """All that a sampler knows of a model."""

    @property
    def schedule(self) -> Schedule:
        """Noise levels, and what ``predict`` returns there."""

    @property
    def device(self) -> torch.device:
        """Where latents and conditions live."""

    def predict(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        """Network output in float32 for latents ``x`` [B, C, h, w] that are told ``t`` [B].

        ``x`` is what ``schedule.enter`` gives, ``t`` what ``schedule.tell`` gives: long for a table of betas.
        """


Denoise = Callable[[Tensor, Level], Estimate]
Draw = Callable[[], Tensor]
Before = Callable[[Tensor, Level], Tensor]


@dataclass(frozen=True)
class State:
    """The latent, the clean latent that the last step expected, and what a multistep rule remembers."""

    x: Tensor
    x0: Tensor | None = None
    memory: tuple[Any, ...] = ()


class StepRule(Protocol):
    """A sampling method: which levels to visit, and one step between two of them."""

    def levels(self, schedule: Schedule, steps: int) -> list[Level]:
        """The levels in visiting order; the last is where the final step arrives."""

    def step(self, state: State, here: Level, there: Level, denoise: Denoise, draw: Draw) -> State:
        """The state at ``there``, given the one at ``here``.

        ``denoise(x, level)`` gives the estimate of a latent, ``draw()`` fresh standard normal noise.
        """


@dataclass(frozen=True)
class Snapshot:
    """What a callback gets after each step.

    Attributes:
        index, total: which step of this walk it was, from 0, and how many there are.
        level: where the step began; its own index is that in the whole walk.
        x: the latent after the step [B, C, h, w].
        x0: the clean latent that the step expected, likewise; what a preview decodes.
    """

    index: int
    total: int
    level: Level
    x: Tensor
    x0: Tensor

    @property
    def t(self) -> float:
        """What the network was told."""
        return self.level.told


def ask(denoiser: Denoiser, x: Tensor, level: Level, cond: Any) -> Tensor:
    """The network's output for latents ``x`` [B, C, h, w] at a level; attention modes know the level meanwhile."""
    schedule = denoiser.schedule
    with at_level(level):
        return denoiser.predict(schedule.enter(x, level), schedule.tell(level, x), cond)


def estimator(denoiser: Denoiser, cond: Any) -> Denoise:
    """What a denoiser believes under a fixed condition, as a function of latent and level."""

    def denoise(x: Tensor, level: Level) -> Estimate:
        return denoiser.schedule.estimate(ask(denoiser, x, level, cond), x, level)

    return denoise


def in_painting(mask: Tensor | None, x0: Tensor | None, draw: Draw, device: torch.device) -> list[Before]:
    """Before each step, put noised ``x0`` where ``mask`` [B or 1, 1, h, w] is 1; nothing to do without a mask.

    Raises:
        UserError: a mask without ``x0``.
    """
    if mask is None:
        return []
    if x0 is None:
        raise UserError("a mask was given without x0, the latent that it keeps")
    mask, x0 = mask.to(device), x0.to(device)

    def keep(x: Tensor, level: Level) -> Tensor:
        return mask * level.noised(x0, draw()) + (1 - mask) * x

    return [keep]


def run(
    rule: StepRule,
    levels: Sequence[Level],
    x: Tensor,
    denoise: Denoise,
    draw: Draw,
    *,
    before: Sequence[Before] = (),
    callback: Callable[[Snapshot], None] | None = None,
    progress: bool = False,
    label: str = "sampling",
) -> Tensor:
    """Walk the latent ``x`` [B, C, h, w] from ``levels[0]`` to ``levels[-1]``; returns it there, float32.

    Args:
        before: each changes the latent before each step, one after the other: in-painting, energies on attention.
        callback: called after each step; whatever it raises, Ctrl-C included, ends the walk.
        progress: show a progress bar.
    """
    state = State(x.float())
    total = len(levels) - 1
    with tqdm(total=total, desc=label, disable=not progress, leave=False) as bar:
        for index, (here, there) in enumerate(itertools.pairwise(levels)):
            with at_level(here):
                for change in before:
                    state = replace(state, x=change(state.x, here))
                state = rule.step(state, here, there, denoise, draw)
            bar.update()
            if callback is not None:
                assert state.x0 is not None, "a step rule says which clean latent it expects"
                callback(Snapshot(index, total, here, state.x, state.x0))
    return state.x


def beginning(noise: Tensor, level: Level, of: Level | None = None) -> Tensor:
    """Standard normal noise [B, C, h, w] as a latent at the noisiest level, with the deviation of latents there.

    That is the noise itself where signal^2 + noise^2 = 1, and sqrt(1 + sigma^2) times it where the signal is 1.

    Args:
        of: the level that the latent has come from, where it is no noise of deviation 1 but a latent there.
    """
    deviation = math.hypot(level.signal, level.noise)
    deviation /= 1 if of is None else math.hypot(of.signal, of.noise)
    return noise if math.isclose(deviation, 1) else deviation * noise


def last_levels(levels: Sequence[Level], start: int | None) -> Sequence[Level]:
    """Only the last ``start`` steps of a walk (image to image); all of them when ``start`` is None.

    Raises:
        UserError: ``start`` is not between 0 and the number of steps.
    """
    if start is None:
        return levels
    if not 0 <= start < len(levels):
        raise UserError(f"cannot run the last {start} of {len(levels) - 1} sampling steps")
    return levels[len(levels) - 1 - start :]


def first_levels(levels: Sequence[Level], stop: int) -> Sequence[Level]:
    """A walk without its last ``stop`` steps.

    Raises:
        UserError: it has not so many.
    """
    if not 0 <= stop < max(len(levels), 1):
        raise UserError(f"cannot leave off the last {stop} of {len(levels) - 1} sampling steps")
    return levels[: len(levels) - stop]

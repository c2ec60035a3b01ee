"""The one denoising loop: a step rule walks a latent along a list of noise levels.

Every rule works on latents in the schedule's own scale, x = signal * x0 + noise * e with signal^2 + noise^2 = 1, so
that rules, in-painting and callbacks fit together whichever coordinates a paper prefers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ldm.modules.diffusionmodules.schedule import Schedule, output_to_eps, output_to_x0
from ldm.util import UserError


class Denoiser(Protocol):
    """All that a sampler knows of a model."""

    @property
    def schedule(self) -> Schedule:
        """Noise levels and what ``predict`` returns (eps, v or x0)."""

    @property
    def device(self) -> torch.device:
        """Where latents and conditions live."""

    def predict(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        """Network output in float32 for latents ``x`` [B, C, h, w] at timesteps ``t`` [B] long."""


@dataclass(frozen=True)
class Level:
    """A noise level: the timestep that the network is told, and the two factors of the latent there."""

    t: int
    signal: float
    noise: float

    @classmethod
    def of(cls, schedule: Schedule, t: int) -> Level:
        """The level of the schedule's step ``t``."""
        return cls(int(t), float(schedule.signal(int(t))), float(schedule.noise(int(t))))

    @classmethod
    def between(cls, t: int, acp: float) -> Level:
        """A level with the signal variance ``acp``, at which the network is told ``t``."""
        return cls(int(t), float(acp) ** 0.5, (1 - float(acp)) ** 0.5)


CLEAN = Level(t=0, signal=1.0, noise=0.0)


class Estimate(NamedTuple):
    """What the network believes about a noisy latent: the clean one and the noise, both [B, C, h, w] float32."""

    x0: Tensor
    eps: Tensor


Look = Callable[[Tensor, Level], Estimate]
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

    def step(self, state: State, here: Level, there: Level, look: Look, draw: Draw) -> State:
        """The state at ``there``, given the one at ``here``; ``draw`` gives fresh standard normal noise."""


@dataclass(frozen=True)
class Snapshot:
    """What a callback gets after each step."""

    index: int
    total: int
    t: int
    x: Tensor
    x0: Tensor


def estimator(denoiser: Denoiser, cond: Any) -> Look:
    """Look through a denoiser at a fixed condition."""
    kind = denoiser.schedule.parameterization

    def look(x: Tensor, level: Level) -> Estimate:
        t = torch.full((x.shape[0],), level.t, device=x.device, dtype=torch.long)
        view = (denoiser.predict(x, t, cond), x, level.signal, level.noise, kind)
        return Estimate(output_to_x0(*view), output_to_eps(*view))

    return look


def in_painting(mask: Tensor | None, x0: Tensor | None, draw: Draw, device: torch.device) -> Before | None:
    """Before each step, put noised ``x0`` where ``mask`` [B or 1, 1, h, w] is 1; None without a mask.

    Raises:
        UserError: a mask without ``x0``.
    """
    if mask is None:
        return None
    if x0 is None:
        raise UserError("a mask was given without x0, the latent that it keeps")
    mask, x0 = mask.to(device), x0.to(device)

    def keep(x: Tensor, level: Level) -> Tensor:
        known = level.signal * x0 + level.noise * draw()
        return mask * known + (1 - mask) * x

    return keep


def run(
    rule: StepRule,
    levels: Sequence[Level],
    x: Tensor,
    look: Look,
    draw: Draw,
    *,
    before: Before | None = None,
    callback: Callable[[Snapshot], None] | None = None,
    progress: bool = False,
    label: str = "sampling",
) -> Tensor:
    """Walk the latent ``x`` [B, C, h, w] from ``levels[0]`` to ``levels[-1]``; returns it there, float32.

    Args:
        before: changes the latent before each step, for example ``in_painting(...)``.
        callback: called after each step; whatever it raises, Ctrl-C included, ends the walk.
        progress: show a progress bar.
    """
    state = State(x.float())
    total = len(levels) - 1
    with tqdm(total=total, desc=label, disable=not progress, leave=False) as bar:
        for index, (here, there) in enumerate(itertools.pairwise(levels)):
            if before is not None:
                state = replace(state, x=before(state.x, here))
            state = rule.step(state, here, there, look, draw)
            bar.update()
            if callback is not None and state.x0 is not None:
                callback(Snapshot(index, total, here.t, state.x, state.x0))
    return state.x


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


def evenly_spaced(schedule: Schedule, steps: int, points: int) -> list[Level]:
    """The first ``steps`` of ``points`` levels spread evenly from the noisiest timestep to 0, then the clean level.

    Raises:
        UserError: fewer than 1 step, or more than the schedule has.
    """
    last = len(schedule) - 1
    if not 1 <= steps <= last:
        raise UserError(f"the number of sampling steps must lie between 1 and {last}, got {steps}")
    gap = last / max(points - 1, 1)
    return [Level.of(schedule, round(last - i * gap)) for i in range(steps)] + [CLEAN]

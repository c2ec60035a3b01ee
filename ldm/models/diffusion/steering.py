"""Before a step the latent is moved down the gradient of an energy on attention; each picture by its own.

The conditional half of the network alone is asked, as far as the last map that counts. Gradients go to the latent:
weights are frozen meanwhile, and keep none.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ldm.control.energy import AllSeen, Energy, ObserveUntil
from ldm.control.observe import AttentionMaps
from ldm.control.seam import attention_mode
from ldm.control.shares import check_share
from ldm.models.diffusion.guidance import expand_condition, take_rows
from ldm.models.diffusion.loop import Denoiser, Level, ask
from ldm.util import UserError

HALF_SCALE = 2.0**10  # of an energy in float16, where its gradient would vanish; taken back from the gradient


@dataclass(frozen=True)
class Slope:
    """An energy as a function of the latent, with its gradient.

    Attributes:
        denoiser: the model, without guidance.
        unet: its network, in which attention is looked at.
        cond: what all pictures of the batch are conditioned on; rows as many as they are, or 1.
    """

    denoiser: Denoiser
    unet: nn.Module
    cond: Any
    energy: Energy

    def __call__(self, x: Tensor, level: Level, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Energies [r] and their gradients [r, C, h, w] at latents ``x`` [B, C, h, w], of some rows; float32.

        Raises:
            UserError: one of them is not finite.
        """
        part = x[list(rows)].detach().requires_grad_()
        cond = take_rows(expand_condition(self.cond, x.shape[0]), rows)
        half = next((p.dtype for p in self.unet.parameters()), torch.float32) is torch.float16
        factor = HALF_SCALE if half or torch.is_autocast_enabled(part.device.type) else 1.0
        with torch.enable_grad(), frozen(self.unet):
            energies = self.energy(self._maps(part, level, cond), rows)
            (gradient,) = torch.autograd.grad(factor * energies.sum(), part)
        gradient = gradient / factor
        if not bool(energies.isfinite().all() and gradient.isfinite().all()):
            raise UserError(
                f"the gradient of the attention at timestep {level.told:g} is not finite: "
                "--precision full or a smaller scale of the guidance would do"
            )
        return energies.detach(), gradient

    def _maps(self, x: Tensor, level: Level, cond: Any) -> AttentionMaps:
        maps = AttentionMaps()
        mode = ObserveUntil(maps, self.energy.sites)
        with attention_mode(self.unet, {self.energy.sites: mode}), contextlib.suppress(AllSeen):
            ask(self.denoiser, x, level, cond)
        return maps


@contextlib.contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Within the block none of a module's weights wants a gradient."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    try:
        for parameter in learning:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_()


@dataclass(frozen=True)
class LayoutSettings:
    """How layout guidance moves a latent; the defaults are the source's (Chen et al. 2023).

    Attributes:
        scale: of the energy.
        threshold: a picture whose energy was not above it is left alone from then on.
        iterations: the most in a step.
        until: the share of the steps in which it may happen: the first 10 of 51.
    """

    scale: float = 30.0
    threshold: float = 0.2
    iterations: int = 5
    until: float = 0.2

    def __post_init__(self) -> None:
        """Raises UserError for a value that means nothing."""
        _check_positive("the scale of layout guidance", self.scale)
        check_share("the share of the steps that layout guidance takes", self.until)
        if self.iterations < 1 or not self.threshold >= 0:
            raise UserError(
                f"layout guidance takes 1 iteration a step or more and a threshold from 0, got {self.iterations} and "
                f"{self.threshold}"
            )


@dataclass
class SteerLayout:
    """A change before each step: x <- x - noise^2 grad(scale L), some times, until L is small enough.

    In sigmas, x = x0 + sigma e, that is the source's sigma^2; a latent in another scale makes the same move. One is for
    one walk: it remembers how small the energy of each picture was.

    Attributes:
        steps: of the whole walk.
        losses: for each picture of the batch, the step and the energy at each iteration.
    """

    slope: Slope
    steps: int
    settings: LayoutSettings = field(default_factory=LayoutSettings)
    losses: dict[int, list[tuple[int, float]]] = field(default_factory=dict)

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        if level.index >= _count(self.settings.until, self.steps):
            return x
        x = x.clone()
        for _ in range(self.settings.iterations):
            rows = [row for row in self.slope.energy.rows if self._last(row) > self.settings.threshold]
            if not rows:
                break
            energies, gradient = self.slope(x, level, rows)
            x[rows] -= level.noise**2 * self.settings.scale * gradient
            for row, energy in zip(rows, energies.tolist(), strict=True):
                self.losses.setdefault(row, []).append((level.index, energy))
        return x

    def _last(self, row: int) -> float:
        return self.losses[row][-1][1] if self.losses.get(row) else math.inf


@dataclass(frozen=True)
class ExciteSettings:
    """How Attend-and-Excite moves a latent; the defaults are the source's (Chefer et al. 2023), for any step count.

    Attributes:
        scale: of the first step; it falls as a square root, to that of ``fall`` times it.
        until: the share of the steps in which it happens: the first 25 of 50.
        thresholds: share of the steps -> how much the most neglected word must be looked at from there on; met by
            refinement in that one step.
        refinements: the most updates for it.
    """

    scale: float = 20.0
    fall: float = 0.5
    until: float = 0.5
    thresholds: Mapping[float, float] = field(default_factory=lambda: {0.0: 0.05, 0.2: 0.5, 0.4: 0.8})
    refinements: int = 20

    def __post_init__(self) -> None:
        """Raises UserError for a value that means nothing."""
        _check_positive("the scale of Attend-and-Excite", self.scale)
        for share, threshold in ((self.until, 0.0), *self.thresholds.items()):
            check_share("the share of the steps that Attend-and-Excite takes", share)
            check_share("a threshold of Attend-and-Excite", threshold)

    def step_size(self, index: int, steps: int) -> float:
        """scale sqrt(linspace(1, fall, steps)[index])."""
        progress = index / max(steps - 1, 1)
        return self.scale * math.sqrt(1 + (self.fall - 1) * progress)

    def target(self, index: int, steps: int) -> float | None:
        """The energy that a picture must come down to in a step; None where there is none."""
        found = [threshold for share, threshold in self.thresholds.items() if _count(share, steps) == index]
        return max(0.0, 1 - max(found)) if found else None


@dataclass
class SteerExcite:
    """A change before each step: x <- x - s grad(L), and in some steps as often as it takes.

    The step is that of a latent with unit deviation; one in another scale makes the same move.

    Attributes:
        steps: of the whole walk.
        losses: for each picture of the batch, the step and the energy at each pass.
    """

    slope: Slope
    steps: int
    settings: ExciteSettings = field(default_factory=ExciteSettings)
    losses: dict[int, list[tuple[int, float]]] = field(default_factory=dict)

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        rows = list(self.slope.energy.rows)
        updates = level.index < _count(self.settings.until, self.steps)
        target = self.settings.target(level.index, self.steps)
        if not rows or not (updates or target is not None):
            return x
        deviation = level.signal**2 + level.noise**2
        size = deviation * self.settings.step_size(level.index, self.steps)
        x, gradient = x.clone(), torch.zeros_like(x)
        energy = self._measure(x, level, rows, gradient)
        waiting = [row for row in rows if target is not None and energy[row] > target]
        for _ in range(self.settings.refinements):
            if not waiting:
                break
            x[waiting] -= size * gradient[waiting]
            before = dict(energy)
            energy |= self._measure(x, level, waiting, gradient)
            waiting = [row for row in waiting if target is not None and before[row] > target]
        if updates:
            x[rows] -= size * gradient[rows]
        return x

    def _measure(self, x: Tensor, level: Level, rows: Sequence[int], gradient: Tensor) -> dict[int, float]:
        """The energies of some rows now; their gradients are put into ``gradient`` [B, C, h, w]."""
        energies, slopes = self.slope(x, level, rows)
        gradient[list(rows)] = slopes
        found = dict(zip(rows, energies.tolist(), strict=True))
        for row, energy in found.items():
            self.losses.setdefault(row, []).append((level.index, energy))
        return found


def _count(share: float, steps: int) -> int:
    """So many of the steps are a share of them."""
    return round(share * steps)


def _check_positive(what: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise UserError(f"{what} must be a number above 0, got {value}")

"""Noise levels in sigma for everything that walks along levels: a preconditioned network as a ``Schedule``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ldm.modules.diffusionmodules.denoiser import Denoiser
from ldm.modules.diffusionmodules.denoiser_scaling import Factors
from ldm.modules.diffusionmodules.discretizer import Discretization
from ldm.modules.diffusionmodules.levels import CLEAN, Estimate, Level, Spacing, numbered
from ldm.modules.diffusionmodules.schedule import spaced_as_powers


@dataclass(frozen=True, eq=False)
class SigmaSchedule:
    """Latents x = x0 + sigma e, and a network that ``denoiser`` makes estimates of.

    Attributes:
        denoiser: the preconditioning; a table of sigmas in it is asked at its nearest entry, while the step goes on
            from the sigma itself.
        discretization: the sigmas of a walk; where the network knows a table, that is a part of it.
    """

    denoiser: Denoiser
    discretization: Discretization

    def levels(self, steps: int, spacing: Spacing = "leading") -> list[Level]:
        """The discretisation's levels and 0; "karras" spaces as powers of 7 between its ends.

        Raises:
            UserError: there are not so many.
        """
        if spacing == "karras":
            ends = self.discretization.sigmas(1000)
            return self.walk(spaced_as_powers(float(ends[0]), float(ends[-1]), steps))
        return self.walk(self.discretization.sigmas(steps))

    def walk(self, sigmas: Iterable[float]) -> list[Level]:
        """The levels of descending sigmas above 0, and no noise behind them."""
        return numbered([*(self.at(float(sigma)) for sigma in sigmas), CLEAN])

    def upwards(self, steps: int) -> list[Level]:
        """The levels of a walk upwards; the last step stays where it is, at the end of what the network knows.

        The lowest of few levels is far from clean (sigma 0.13 for 50 steps of Stable Diffusion XL), so a clean latent
        is no latent there: a step leads to it, before which the network is asked as at that level.
        """
        asked = self.levels(steps)[-2::-1]
        clean = Level(asked[0].told - 1, 1.0, 0.0, index=len(asked), via=asked[0])
        return [clean, *asked, replace(asked[-1], index=-1)]

    def at(self, sigma: float) -> Level:
        """The level of a sigma, outside of any walk."""
        return Level(float(self._factors(sigma).noise), 1.0, float(sigma))

    def enter(self, x: Tensor, level: Level) -> Tensor:
        return x * float(self._factors(_asked(level).noise).enter)

    def tell(self, level: Level, x: Tensor) -> Tensor:
        """What the network is told, [B]: the entry of a table (long) or a number (float32)."""
        told = self._factors(_asked(level).noise).noise
        return told.to(x.device).expand(x.shape[0]) if told.dtype == torch.long else torch.full(
            (x.shape[0],), float(told), device=x.device
        )  # fmt: skip

    def estimate(self, out: Tensor, x: Tensor, level: Level) -> Estimate:
        sigma = _asked(level).noise
        factors = self._factors(sigma)
        x0 = float(factors.skip) * x.float() + float(factors.out) * out.float()
        return Estimate(x0 if level.noise else x.float(), (x.float() - x0) / sigma)

    def _factors(self, sigma: float) -> Factors:
        return self.denoiser.factors(torch.tensor(sigma, dtype=torch.float64, device="cpu"))


def _asked(level: Level) -> Level:
    """The level as which the network is asked: of a clean latent, the one that the step from it leads to."""
    return level if level.noise or level.via is None else level.via

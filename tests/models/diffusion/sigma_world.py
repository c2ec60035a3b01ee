"""The Gaussian world once more, with levels of sigma, a preconditioned network and fractional numbers (EDM)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ldm.modules.diffusionmodules.levels import CLEAN, Estimate, Level, Spacing, numbered

DATA = 0.5  # the deviation of clean values that the preconditioning expects


@dataclass(frozen=True)
class SigmaSchedule:
    """x = x0 + sigma e with sigmas spaced as powers (Karras et al. 2022, equation 5), told as ln(sigma) / 4."""

    least: float = 0.02
    most: float = 80.0
    rho: float = 7.0

    def levels(self, steps: int, spacing: Spacing = "leading") -> list[Level]:
        ramp = np.linspace(self.most ** (1 / self.rho), self.least ** (1 / self.rho), steps) ** self.rho
        return numbered([*(Level(math.log(sigma) / 4, 1.0, float(sigma)) for sigma in ramp), CLEAN])

    def upwards(self, steps: int) -> list[Level]:
        return self.levels(steps)[-2::-1]

    def at(self, sigma: float) -> Level:
        return Level(math.log(sigma) / 4, 1.0, sigma)

    def enter(self, x: Tensor, level: Level) -> Tensor:
        return x / math.hypot(level.noise, DATA)

    def tell(self, level: Level, x: Tensor) -> Tensor:
        return torch.full((x.shape[0],), level.told, device=x.device)

    def estimate(self, out: Tensor, x: Tensor, level: Level) -> Estimate:
        skip, scale = skip_and_scale(level.noise)
        x0 = skip * x + scale * out
        return Estimate(x0, (x - x0) / level.noise)


def skip_and_scale(sigma: float) -> tuple[float, float]:
    """c_skip and c_out."""
    return DATA**2 / (sigma**2 + DATA**2), sigma * DATA / math.hypot(sigma, DATA)


@dataclass
class SigmaDenoiser:
    """A network whose estimate is E[x0 | x] for x0 ~ N(mean, deviation^2); ``cond`` [B, 1] shifts the mean."""

    mean: float = 0.6
    deviation: float = 0.3
    schedule: SigmaSchedule = SigmaSchedule()
    told: list[float] = field(default_factory=list)
    device: ClassVar[torch.device] = torch.device("cpu")

    def predict(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        assert t.dtype == torch.float32 and t.shape == (x.shape[0],)
        assert x.std() < 3 * self.deviation / DATA + abs(self.mean)  # what enters is scaled, whatever sigma is
        self.told.append(float(t[0]))
        sigma = math.exp(4 * float(t[0]))
        skip, scale = skip_and_scale(sigma)
        latent = x.double() * math.hypot(sigma, DATA)
        mean = self.mean + (0.0 if cond is None else cond.reshape(-1, 1, 1, 1).double())
        x0 = mean + self.deviation**2 / (self.deviation**2 + sigma**2) * (latent - mean)
        return ((x0 - skip * latent) / scale).float()

"""A world in which the perfect denoiser is known: every latent value is normal, N(mean, deviation^2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from ldm.modules.diffusionmodules.schedule import BetaSchedule, make_beta_schedule

BETAS = make_beta_schedule("linear", 1000, 0.00085, 0.012)


@dataclass
class GaussianDenoiser:
    """E[x0 | x_t] for x0 ~ N(mean, deviation^2), told as eps, v or x0; ``cond`` [B, 1] or None shifts the mean."""

    mean: float = 0.6
    deviation: float = 0.5
    parameterization: str = "eps"
    calls: list[int] = field(default_factory=list)
    device: ClassVar[torch.device] = torch.device("cpu")

    def __post_init__(self) -> None:
        self.schedule = BetaSchedule.from_betas(BETAS, self.parameterization)

    def predict(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        assert t.dtype == torch.long and t.shape == (x.shape[0],)
        self.calls.append(x.shape[0])
        shape = (-1, 1, 1, 1)
        s = self.schedule.signal(t).reshape(shape)
        n = self.schedule.noise(t).reshape(shape)
        mean = self.mean + (0.0 if cond is None else cond.reshape(shape).double())
        gain = s * self.deviation**2 / (s**2 * self.deviation**2 + n**2)
        x0 = mean + gain * (x.double() - s * mean)
        eps = (x.double() - s * x0) / n
        return {"x0": x0, "eps": eps, "v": s * eps - n * x0}[self.parameterization].float()

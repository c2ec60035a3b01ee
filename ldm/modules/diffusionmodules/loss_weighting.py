"""How much the error of a denoised latent counts at a noise level sigma."""

from __future__ import annotations

import torch
from torch import Tensor


class UnitWeighting:
    """1 at every sigma."""

    def __call__(self, sigma: Tensor) -> Tensor:
        return torch.ones_like(sigma)


class EpsWeighting:
    """1 / sigma^2: the error of the noise instead of the clean latent."""

    def __call__(self, sigma: Tensor) -> Tensor:
        return sigma**-2.0


class EDMWeighting:
    """(sigma^2 + sd^2) / (sigma sd)^2 with the deviation sd of clean latents (Karras et al. 2022, table 1)."""

    def __init__(self, sigma_data: float = 0.5) -> None:
        self.sigma_data = sigma_data

    def __call__(self, sigma: Tensor) -> Tensor:
        return (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2


class VWeighting(EDMWeighting):
    """The error of v: EDM's weight for a deviation of 1."""

    def __init__(self) -> None:
        super().__init__(sigma_data=1.0)

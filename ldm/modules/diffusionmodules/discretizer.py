"""Walks along noise levels sigma: how a number of steps becomes so many sigmas."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from ldm.modules.diffusionmodules.schedule import make_beta_schedule, spaced_as_powers
from ldm.util import ConfigError, UserError


class Discretization(ABC):
    """Sigmas of a walk, by how many they are."""

    @abstractmethod
    def sigmas(self, n: int) -> np.ndarray:
        """``n`` sigmas above 0, descending, float64 [n].

        Raises:
            UserError: there are none so many.
        """

    def __call__(self, n: int, do_append_zero: bool = True, device: str = "cpu", flip: bool = False) -> Tensor:
        """The sigmas as float32 [n], or [n + 1] with a 0 behind the last; ``flip``: ascending."""
        sigmas = torch.from_numpy(self.sigmas(n)).float()
        if do_append_zero:
            sigmas = torch.nn.functional.pad(sigmas, (0, 1))
        return (sigmas.flip(0) if flip else sigmas).to(device)


class LegacyDDPMDiscretization(Discretization):
    """The noise-to-signal ratios of a table of betas, evenly spaced and without its last entries.

    With fewer steps than the table is long the first is always its noisiest, and the last is about one stride away from
    its least noisy.
    """

    def __init__(self, linear_start: float = 0.00085, linear_end: float = 0.012, num_timesteps: int = 1000) -> None:
        betas = make_beta_schedule("linear", num_timesteps, linear_start, linear_end)
        self.num_timesteps = num_timesteps
        self.alphas_cumprod = np.cumprod(1.0 - betas)

    def sigmas(self, n: int) -> np.ndarray:
        table = self.num_timesteps
        if not 1 <= n <= table:
            raise UserError(f"the number of sampling steps must lie between 1 and {table}, got {n}")
        if n < table:
            acp = self.alphas_cumprod[np.linspace(table - 1, 0, n, endpoint=False).astype(np.int64)]
        else:
            acp = self.alphas_cumprod[::-1]
        return np.sqrt(((1 - acp) / acp).astype(np.float32)).astype(np.float64)


class SubstepDiscretization(Discretization):
    """The first sigmas of another walk at a stride, and then no noise: Stable Diffusion XL Turbo's few steps.

    Args:
        discretization: the other walk, by default a table of betas.
        whole: its steps.
        stride: every so many of them.
    """

    def __init__(self, discretization: Discretization | None = None, whole: int = 1000, stride: int = 100) -> None:
        self.discretization = LegacyDDPMDiscretization() if discretization is None else discretization
        self.whole, self.stride = whole, stride

    def sigmas(self, n: int) -> np.ndarray:
        most = self.whole // self.stride
        if not 1 <= n <= most:
            raise UserError(f"the number of sampling steps must lie between 1 and {most} for this model, got {n}")
        return self.discretization.sigmas(self.whole)[: n * self.stride : self.stride]


class EDMDiscretization(Discretization):
    """Sigmas spaced as powers (Karras et al. 2022, equation 5)."""

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> None:
        """Raises ConfigError: numbers that make no walk."""
        if not (0 < sigma_min < sigma_max and rho > 0):
            raise ConfigError(
                f"levels need 0 < sigma_min < sigma_max and rho > 0, got {sigma_min}, {sigma_max} and {rho}"
            )
        self.sigma_min, self.sigma_max, self.rho = sigma_min, sigma_max, rho

    def sigmas(self, n: int) -> np.ndarray:
        return spaced_as_powers(self.sigma_max, self.sigma_min, n, self.rho)


class Img2ImgDiscretizationWrapper(Discretization):
    """The end of another walk: image to image. ``strength`` 1 is the whole walk.

    Of its sigmas and the 0 behind them the smallest ``strength`` are kept, one at least.
    """

    def __init__(self, discretization: Discretization, strength: float = 1.0) -> None:
        """Raises ConfigError: the strength is not between 0 and 1."""
        self.discretization, self.strength = discretization, checked_strength(strength)

    def sigmas(self, n: int) -> np.ndarray:
        kept = max(int(self.strength * (n + 1)), 1)
        return self.discretization.sigmas(n)[n + 1 - kept :]


class Txt2NoisyDiscretizationWrapper(Discretization):
    """The beginning of another walk, which another model finishes from where ``strength`` would begin it.

    Args:
        original_steps: of the whole walk; the number that is asked for without.
    """

    def __init__(
        self, discretization: Discretization, strength: float = 0.0, original_steps: int | None = None
    ) -> None:
        """Raises ConfigError: the strength is not between 0 and 1."""
        self.discretization, self.strength = discretization, checked_strength(strength)
        self.original_steps = original_steps

    def sigmas(self, n: int) -> np.ndarray:
        """All but the smallest; none of them is 0, so nothing is to be put behind them."""
        steps = n if self.original_steps is None else self.original_steps
        whole = np.append(self.discretization.sigmas(n), 0.0)
        return whole[: len(whole) - max(min(int(self.strength * (steps + 1)) - 1, steps), 0)]

    def __call__(self, n: int, do_append_zero: bool = True, device: str = "cpu", flip: bool = False) -> Tensor:
        return super().__call__(n, do_append_zero=False, device=device, flip=flip)


def checked_strength(strength: float) -> float:
    """Raises ConfigError for a strength that is not between 0 and 1."""
    if not 0 <= strength <= 1:
        raise ConfigError(f"a strength lies between 0 and 1, got {strength}")
    return strength

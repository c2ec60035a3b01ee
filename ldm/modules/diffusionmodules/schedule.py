"""Tables of betas: their steps, the steps that DDIM visits, and the conversion between what a network may predict.

A noisy latent is x_t = s_t x0 + n_t e with s_t = sqrt(acp_t) and n_t = sqrt(1 - acp_t), where acp is the running
product of 1 - beta (Ho et al. 2020, eq. 4). Tables are float64; results on latents are float32.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ldm.modules.diffusionmodules.levels import CLEAN, Estimate, Level, Spacing, numbered
from ldm.util import UserError

log = logging.getLogger(__name__)

PARAMETERIZATIONS = ("eps", "v", "x0")
LARGEST_BETA = 0.999
WHOLE = 1e-6  # timesteps: what is nearer to a whole one is that
LONGEST = 100_000  # timesteps: a hundred times what any model was trained with

Table = TypeVar("Table", float, np.ndarray)


def spaced_as_powers(largest: float, least: float, n: int, rho: float = 7.0) -> np.ndarray:
    """``n`` numbers from ``largest`` to ``least`` whose rho-th roots are evenly spaced (Karras et al. 2022, eq. 5).

    Raises:
        UserError: fewer than 1 number.
    """
    if n < 1:
        raise UserError(f"the number of sampling steps must be at least 1, got {n}")
    return np.linspace(largest ** (1 / rho), least ** (1 / rho), n, dtype=np.float64) ** rho


def make_beta_schedule(
    schedule: str, n_timestep: int, linear_start: float = 1e-4, linear_end: float = 2e-2, cosine_s: float = 8e-3
) -> np.ndarray:
    """The variance that each of the ``n_timestep`` steps adds, float64 [T].

    Args:
        schedule: "linear" (linear in the square root of beta), "sqrt_linear" (linear in beta), "sqrt" (the root of
            linear values) or "cosine" (Nichol & Dhariwal 2021, eq. 17, with offset ``cosine_s``).

    Raises:
        UserError: an unknown schedule, a length below 1 or beyond all reason, or numbers that are none.
    """
    if not 1 <= n_timestep <= LONGEST:
        raise UserError(f"a noise schedule ('timesteps') needs at least 1 step and at most {LONGEST}, got {n_timestep}")
    if not (math.isfinite(linear_start) and math.isfinite(linear_end) and math.isfinite(cosine_s)):
        raise UserError(f"a noise schedule needs finite numbers, got {linear_start}, {linear_end} and {cosine_s}")
    if schedule == "linear":
        return np.linspace(linear_start**0.5, linear_end**0.5, n_timestep, dtype=np.float64) ** 2
    if schedule == "sqrt_linear":
        return np.linspace(linear_start, linear_end, n_timestep, dtype=np.float64)
    if schedule == "sqrt":
        return np.linspace(linear_start, linear_end, n_timestep, dtype=np.float64) ** 0.5
    if schedule == "cosine":
        progress = (np.arange(n_timestep + 1, dtype=np.float64) / n_timestep + cosine_s) / (1 + cosine_s)
        signal_variance = np.cos(progress * np.pi / 2) ** 2
        return np.clip(1 - signal_variance[1:] / signal_variance[:-1], 0, LARGEST_BETA)
    raise UserError(f"unknown noise schedule '{schedule}'; known: linear, cosine, sqrt_linear, sqrt")


def make_ddim_timesteps(method: str, S: int, T: int, verbose: bool = False) -> np.ndarray:
    """The timesteps that DDIM visits, ascending, int64 [number of steps] (Song et al. 2021, section 4.2).

    "uniform" takes every (T // S)-th step, so that an S which does not divide T gives more than S steps; "quad" takes S
    steps spaced as squares up to 0.8 T. Both are shifted up by one.

    Raises:
        UserError: an unknown method, or an S for which a step would lie outside 1..T-1.
    """
    if not 1 <= S <= T:
        raise UserError(f"the number of sampling steps must lie between 1 and {T}, got {S}")
    if method == "uniform":
        steps = np.arange(0, T, T // S, dtype=np.int64) + 1
    elif method == "quad":
        steps = (np.linspace(0, np.sqrt(0.8 * T), S) ** 2).astype(np.int64) + 1
    else:
        raise UserError(f"unknown way to space DDIM steps '{method}'; known: uniform, quad")
    if steps[-1] >= T:
        raise UserError(
            f"{S} sampling steps would visit timestep {steps[-1]} of a schedule that ends at {T - 1}; "
            f"take a number of steps that divides {T}, such as {_nearest_divisor(S, T)}"
        )
    if verbose:
        log.info("DDIM timesteps: %s", steps)
    return steps


def evenly_spaced(T: int, steps: int, points: int) -> list[int]:
    """The first ``steps`` of ``points`` timesteps spread evenly from T - 1 to 0, rounded to whole ones.

    Raises:
        UserError: fewer than 1 step, or more than the schedule has such points for.
    """
    most = T - (points - steps)
    if not 1 <= steps <= most:
        raise UserError(f"the number of sampling steps must lie between 1 and {most}, got {steps}")
    gap = (T - 1) / max(points - 1, 1)
    return [round(T - 1 - i * gap) for i in range(steps)]


def _nearest_divisor(S: int, T: int) -> int:
    """The divisor of T nearest to S whose last uniform step, T - T/S + 1, stays inside the schedule."""
    usable = [s for s in range(1, T // 2 + 1) if T % s == 0]
    return min(usable, key=lambda s: abs(s - S), default=1)


def make_ddim_sampling_parameters(
    alphacums: np.ndarray | Tensor | Sequence[float], ddim_timesteps: np.ndarray, eta: float, verbose: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(sigmas, alphas, alphas_prev)`` at the DDIM steps, float64, each as long as ``ddim_timesteps``.

    ``alphas`` are acp at the steps, ``alphas_prev`` acp one visited step earlier (acp[0] before the first), and sigma
    is the spread of the fresh noise, eta times that of the DDPM posterior (Song et al. 2021, eq. 16).
    """
    table = np.asarray(alphacums, dtype=np.float64)
    alphas = table[ddim_timesteps]
    alphas_prev = np.concatenate([table[:1], alphas[:-1]])
    here, there = ((np.sqrt(acp), np.sqrt(1 - acp)) for acp in (alphas, alphas_prev))
    sigmas = eta * posterior_spread(*here, *there)
    if verbose:
        log.info("DDIM alphas: %s; alphas_prev: %s; sigmas for eta %s: %s", alphas, alphas_prev, eta, sigmas)
    return sigmas, alphas, alphas_prev


def posterior_spread(signal: Table, noise: Table, signal_after: Table, noise_after: Table) -> Table:
    """The deviation of the fresh noise in a step of DDPM from one level to another (Song et al. 2021, eq. 16).

    Of tables or of single levels, in any scale: with sigma = noise / signal it is n' / sigma sqrt(sigma^2 - sigma'^2).
    """
    fresh = noise**2 - (signal / signal_after * noise_after) ** 2
    return noise_after / noise * np.sqrt(np.maximum(fresh, 0.0))


Factor = Tensor | float


def output_to_eps(out: Tensor, x: Tensor, signal: Factor, noise: Factor, parameterization: str) -> Tensor:
    """The noise in ``x = signal x0 + noise e`` that the network output ``out`` stands for; float32.

    Shapes: ``out`` and ``x`` [B, C, h, w]; factors are numbers or broadcast against them.
    """
    if parameterization == "eps":
        return out.float()
    if parameterization == "v":
        return signal * out.float() + noise * x.float()
    return (x.float() - signal * out.float()) / noise


def output_to_x0(out: Tensor, x: Tensor, signal: Factor, noise: Factor, parameterization: str) -> Tensor:
    """The clean latent in ``x = signal x0 + noise e`` that the network output ``out`` stands for; float32.

    Shapes: as in :func:`output_to_eps`.
    """
    if parameterization == "x0":
        return out.float()
    if parameterization == "v":
        return signal * x.float() - noise * out.float()
    return (x.float() - noise * out.float()) / signal


@dataclass(frozen=True)
class BetaSchedule:
    """A table of noise levels together with what the network predicts; a ``Schedule`` that tells whole timesteps.

    Attributes:
        alphas_cumprod: float64 [T] on the CPU, descending.
        parameterization: "eps", "v" (Salimans & Ho 2022: v = s e - n x0) or "x0".
    """

    alphas_cumprod: Tensor
    parameterization: str = "eps"

    def __post_init__(self) -> None:
        if self.parameterization not in PARAMETERIZATIONS:
            known = ", ".join(PARAMETERIZATIONS)
            raise UserError(f"unknown parameterization '{self.parameterization}'; known: {known}")

    @classmethod
    def from_betas(cls, betas: np.ndarray, parameterization: str = "eps") -> BetaSchedule:
        """The schedule whose steps add the variances ``betas`` [T]."""
        return cls(torch.from_numpy(np.cumprod(1.0 - np.asarray(betas, dtype=np.float64))), parameterization)

    def __len__(self) -> int:
        return self.alphas_cumprod.shape[0]

    def level(self, t: int) -> Level:
        """The level of timestep ``t``, outside of any walk."""
        t = int(t)
        return Level(t, float(self.signal(t)), float(self.noise(t)), index=t)

    def levels(self, steps: int, spacing: Spacing = "leading") -> list[Level]:
        """The levels of a walk down; see ``Schedule.levels``.

        Raises:
            UserError: fewer than 1 step, or more than the schedule has.
        """
        if spacing == "leading":
            timesteps = [*reversed(make_ddim_timesteps("uniform", steps, len(self))), 0]
            return numbered([self.level(t) for t in timesteps])
        if spacing == "karras":
            ends = (self.level(len(self) - 1).sigma, self.level(0).sigma)
            return numbered([*map(self.at, spaced_as_powers(*ends, steps).tolist()), CLEAN])
        points = steps if spacing == "linspace" else steps + 1
        return numbered([*map(self.level, evenly_spaced(len(self), steps, points)), CLEAN])

    def upwards(self, steps: int) -> list[Level]:
        """The levels of DDIM, upwards; the last step goes one stride on, or to the end of the schedule if nearer.

        Raises:
            UserError: the number of steps does not fit the schedule.
        """
        asked = self.levels(steps)[:-1]
        end = self.level(min(int(asked[0].told) + len(self) // steps, len(self) - 1))
        return [*reversed(asked), replace(end, index=-1)]

    def at(self, sigma: float) -> Level:
        """The level of noise / signal = ``sigma``; its timestep lies between two of the table, by ln(sigma)."""
        acp = self.alphas_cumprod
        told = float(np.interp(math.log(sigma), (((1 - acp) / acp).log() / 2).numpy(), np.arange(len(self))))
        whole = round(told)
        told = float(whole) if abs(told - whole) < WHOLE else told
        return Level(told, 1 / math.hypot(1, sigma), sigma / math.hypot(1, sigma))

    def enter(self, x: Tensor, level: Level) -> Tensor:
        """``x`` itself: the network takes latents as they are."""
        return x

    def tell(self, level: Level, x: Tensor) -> Tensor:
        """The timestep [B] for the rows of ``x``; long, or float32 for one between two of the table."""
        whole = level.told == int(level.told)
        dtype = torch.long if whole else torch.float32
        return torch.full((x.shape[0],), int(level.told) if whole else level.told, device=x.device, dtype=dtype)

    def estimate(self, out: Tensor, x: Tensor, level: Level) -> Estimate:
        """What the network's output ``out`` for latents ``x`` [B, C, h, w] at a level says; float32."""
        view = (out, x, level.signal, level.noise, self.parameterization)
        return Estimate(output_to_x0(*view), output_to_eps(*view))

    def signal(self, t: Tensor | int) -> Tensor:
        """sqrt(acp_t), float64, of the shape of ``t``, on the CPU."""
        return self._at(t).sqrt()

    def noise(self, t: Tensor | int) -> Tensor:
        """sqrt(1 - acp_t), float64, of the shape of ``t``, on the CPU."""
        return (1 - self._at(t)).sqrt()

    def to_eps(self, out: Tensor, x: Tensor, t: Tensor | int) -> Tensor:
        """The noise in ``x`` [B, ...] that the network output ``out`` stands for; float32."""
        return output_to_eps(out, x, *self._factors(t, x), self.parameterization)

    def to_x0(self, out: Tensor, x: Tensor, t: Tensor | int) -> Tensor:
        """The clean latent in ``x`` [B, ...] that the network output ``out`` stands for; float32."""
        return output_to_x0(out, x, *self._factors(t, x), self.parameterization)

    def _at(self, t: Tensor | int) -> Tensor:
        return self.alphas_cumprod[torch.as_tensor(t, device="cpu").long()]

    def _factors(self, t: Tensor | int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Signal and noise in float32 on the device of ``like``, shaped to multiply it."""
        acp = self._at(t)
        acp = acp.reshape(acp.shape + (1,) * (like.dim() - acp.dim())) if acp.dim() else acp
        return acp.sqrt().to(like.device, torch.float32), (1 - acp).sqrt().to(like.device, torch.float32)

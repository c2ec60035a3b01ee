"""The forward process and its posterior: tables of a noise schedule and what is computed with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ldm.modules.diffusionmodules.forward_process import extract, q_sample
from ldm.modules.diffusionmodules.schedule import PARAMETERIZATIONS, BetaSchedule, make_beta_schedule
from ldm.util import ConfigError


@dataclass(frozen=True)
class ScheduleOptions:
    """A noise schedule of variances, and what the network predicts along it."""

    timesteps: int = 1000
    beta_schedule: str = "linear"
    linear_start: float = 1e-4
    linear_end: float = 2e-2
    cosine_s: float = 8e-3
    given_betas: Sequence[float] | None = None  # instead of a named schedule
    parameterization: str = "eps"  # what the network predicts: eps, v or x0
    v_posterior: float = 0.0  # posterior variance: 0 the true one, 1 beta, between: mixed

    def __post_init__(self) -> None:
        """Raises ConfigError for an unknown parameterization."""
        if self.parameterization not in PARAMETERIZATIONS:
            known = ", ".join(PARAMETERIZATIONS)
            raise ConfigError(f"unknown parameterization '{self.parameterization}'; known: {known}")

    def betas(self) -> np.ndarray:
        """The variances that the steps add, float64 [timesteps].

        Raises:
            UserError: an unknown ``beta_schedule``, or fewer than 1 timestep.
        """
        if self.given_betas is not None:
            return np.asarray(self.given_betas, dtype=np.float64)
        shape = (self.linear_start, self.linear_end, self.cosine_s)
        return make_beta_schedule(self.beta_schedule, self.timesteps, *shape)


class GaussianDiffusion(nn.Module):
    """The noise schedule of a model: float32 tables as buffers under their released names, and arithmetic on them.

    ``schedule`` holds the same in float64, out of reach of a change of precision. Latents are [B, C, h, w], timesteps
    [B]. Source: Ho et al. 2020; Salimans and Ho 2022 for v.
    """

    parameterization: str
    v_posterior: float

    betas: Tensor
    alphas_cumprod: Tensor
    alphas_cumprod_prev: Tensor
    sqrt_alphas_cumprod: Tensor
    sqrt_one_minus_alphas_cumprod: Tensor
    log_one_minus_alphas_cumprod: Tensor
    sqrt_recip_alphas_cumprod: Tensor
    sqrt_recipm1_alphas_cumprod: Tensor
    posterior_variance: Tensor
    posterior_log_variance_clipped: Tensor
    posterior_mean_coef1: Tensor
    posterior_mean_coef2: Tensor
    lvlb_weights: Tensor

    def register_schedule(self, options: ScheduleOptions) -> None:
        """Compute every table in float64 and keep it as a float32 buffer."""
        self.parameterization = options.parameterization
        self.v_posterior = options.v_posterior
        betas = options.betas()
        alphas = 1.0 - betas
        acp = np.cumprod(alphas)
        acp_prev = np.append(1.0, acp[:-1])
        posterior_variance = (1 - self.v_posterior) * betas * (1 - acp_prev) / (1 - acp) + self.v_posterior * betas
        tables = {
            "betas": betas,
            "alphas_cumprod": acp,
            "alphas_cumprod_prev": acp_prev,
            "sqrt_alphas_cumprod": np.sqrt(acp),
            "sqrt_one_minus_alphas_cumprod": np.sqrt(1 - acp),
            "log_one_minus_alphas_cumprod": np.log(1 - acp),
            "sqrt_recip_alphas_cumprod": np.sqrt(1 / acp),
            "sqrt_recipm1_alphas_cumprod": np.sqrt(1 / acp - 1),
            # q(x_{t-1} | x_t, x_0), Ho et al. 2020, equation 7; the first variance is 0, so its log is clipped
            "posterior_variance": posterior_variance,
            "posterior_log_variance_clipped": np.log(np.maximum(posterior_variance, 1e-20)),
            "posterior_mean_coef1": betas * np.sqrt(acp_prev) / (1 - acp),
            "posterior_mean_coef2": (1 - acp_prev) * np.sqrt(alphas) / (1 - acp),
        }
        for name, table in tables.items():
            self.register_buffer(name, torch.from_numpy(table.astype(np.float32)))
        vlb = self._vlb_weights(betas, acp, posterior_variance)
        self.register_buffer("lvlb_weights", torch.from_numpy(vlb.astype(np.float32)), persistent=False)
        self.num_timesteps = len(betas)
        self.schedule = BetaSchedule.from_betas(betas, self.parameterization)

    def _vlb_weights(self, betas: np.ndarray, acp: np.ndarray, posterior_variance: np.ndarray) -> np.ndarray:
        """Weights of the per-timestep loss in the variational bound; the first, infinite, is that of the second."""
        if self.parameterization == "v":
            return np.ones_like(betas)
        if self.parameterization == "x0":
            return 0.5 * np.sqrt(acp) / (2.0 - acp)
        weights = np.zeros_like(betas)
        later = slice(1, None)
        alphas = 1.0 - betas
        weights[later] = betas[later] ** 2 / (2 * posterior_variance[later] * alphas[later] * (1 - acp[later]))
        weights[0] = weights[1]
        return weights

    def q_sample(self, x_start: Tensor, t: Tensor, noise: Tensor | None = None) -> Tensor:
        """x_t [B, C, H, W] from x0 and noise (Ho et al. 2020, equation 4)."""
        noise = torch.randn_like(x_start) if noise is None else noise
        return q_sample(x_start, t, noise, self.sqrt_alphas_cumprod, self.sqrt_one_minus_alphas_cumprod)

    def q_posterior(self, x_start: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, variance and clipped log-variance of q(x_{t-1} | x_t, x_0) (Ho et al. 2020, equation 7).

        Shapes: latents and mean [B, C, H, W], t [B], variances [B, 1, 1, 1].
        """
        mean = extract(self.posterior_mean_coef1, t, x_t) * x_start + extract(self.posterior_mean_coef2, t, x_t) * x_t
        variance = extract(self.posterior_variance, t, x_t)
        return mean, variance, extract(self.posterior_log_variance_clipped, t, x_t)

    def predict_start_from_noise(self, x_t: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x0 from x_t and the noise in it."""
        return (
            extract(self.sqrt_recip_alphas_cumprod, t, x_t) * x_t
            - extract(self.sqrt_recipm1_alphas_cumprod, t, x_t) * noise
        )

    def get_v(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """v = sqrt(acp) noise - sqrt(1 - acp) x0 (Salimans and Ho 2022, section 4)."""
        return (
            extract(self.sqrt_alphas_cumprod, t, x) * noise - extract(self.sqrt_one_minus_alphas_cumprod, t, x) * x
        )

    def predict_start_from_z_and_v(self, x_t: Tensor, t: Tensor, v: Tensor) -> Tensor:
        """x0 from x_t and v."""
        return self.schedule_v.to_x0(v, x_t, t)

    def predict_eps_from_z_and_v(self, x_t: Tensor, t: Tensor, v: Tensor) -> Tensor:
        """The noise in x_t, from x_t and v."""
        return self.schedule_v.to_eps(v, x_t, t)

    @property
    def schedule_v(self) -> BetaSchedule:
        """The schedule read as that of a v-predicting network."""
        return BetaSchedule(self.schedule.alphas_cumprod, "v")

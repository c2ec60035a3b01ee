"""Noise added to a condition: to the small picture of an up-scaler, or to an image embedding.

A model that is shown only clean conditions trusts them too much. Shown conditions with a known amount of noise, it can
be told at sampling time how far to trust what it is given (Ho et al. 2022, "Cascaded Diffusion Models", section 4.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ldm.modules.diffusionmodules.forward_process import q_sample
from ldm.modules.diffusionmodules.schedule import make_beta_schedule
from ldm.util import ConfigError, UserError


class AbstractLowScaleModel(nn.Module):
    """A condition's own noise schedule; its tables are buffers, because released checkpoints carry them.

    Args:
        noise_schedule_config: ``beta_schedule`` ("linear"), ``timesteps`` (1000), ``linear_start`` (1e-4),
            ``linear_end`` (2e-2) and ``cosine_s`` (8e-3), or None for a model that adds no noise.

    Raises:
        ConfigError: an entry of ``noise_schedule_config`` that is none of these.
    """

    alphas_cumprod: Tensor
    sqrt_alphas_cumprod: Tensor
    sqrt_one_minus_alphas_cumprod: Tensor

    def __init__(self, noise_schedule_config: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        if noise_schedule_config is not None:
            for name, table in _noise_tables(**_checked(noise_schedule_config)).items():
                self.register_buffer(name, torch.from_numpy(table.astype(np.float32)))

    def q_sample(self, x_start: Tensor, t: Tensor, noise: Tensor | None = None) -> Tensor:
        """sqrt(acp_t) x + sqrt(1 - acp_t) noise for ``x_start`` [B, ...], levels t [B] (Ho et al. 2020, eq. 4).

        Raises:
            UserError: a level that the schedule does not have.
        """
        last = len(self.alphas_cumprod) - 1
        if not 0 <= int(t.min()) <= int(t.max()) <= last:
            raise UserError(f"a noise level must lie between 0 and {last}, got {t.flatten().tolist()}")
        noise = torch.randn(x_start.shape, device="cpu") if noise is None else noise
        signal, spread = self.sqrt_alphas_cumprod, self.sqrt_one_minus_alphas_cumprod
        return q_sample(x_start, t, noise.to(x_start), signal.to(x_start.device), spread.to(x_start.device))

    def forward(
        self, x: Tensor, noise_level: Tensor | None = None, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The condition ``x`` [B, ...] as the network is to see it, and its noise levels [B].

        Args:
            noise_level: [B], whole numbers; None for random ones.
            noise: standard normal, of the shape of ``x``; None for random noise.

        Raises:
            UserError: a level that the schedule does not have.
        """
        raise NotImplementedError

    def decode(self, x: Tensor) -> Tensor:
        """The picture that the condition ``x`` stands for: here itself."""
        return x


class SimpleImageConcat(AbstractLowScaleModel):
    """The condition as it is, at noise level 0."""

    def forward(
        self, x: Tensor, noise_level: Tensor | None = None, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return x, torch.zeros(x.shape[0], device=x.device, dtype=torch.long)


class ImageConcatWithNoiseAugmentation(AbstractLowScaleModel):
    """The condition with noise: at the levels asked for, or at random ones below ``max_noise_level``.

    ``to_cuda`` is accepted for old YAMLs and changes nothing: the module is where its model is.
    """

    def __init__(
        self, noise_schedule_config: Mapping[str, Any], max_noise_level: int = 1000, to_cuda: bool = False
    ) -> None:
        super().__init__(noise_schedule_config)
        self.max_noise_level = max_noise_level

    def forward(
        self, x: Tensor, noise_level: Tensor | None = None, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if noise_level is None:
            noise_level = torch.randint(0, self.max_noise_level, x.shape[:1], device="cpu")
        noise_level = noise_level.to(x.device)
        return self.q_sample(x, noise_level, noise), noise_level


_SCHEDULE_KEYS = ("beta_schedule", "timesteps", "linear_start", "linear_end", "cosine_s")


def _checked(config: Mapping[str, Any]) -> dict[str, Any]:
    unknown = [key for key in config if key not in _SCHEDULE_KEYS]
    if unknown:
        raise ConfigError(f"'noise_schedule_config' has no entry '{unknown[0]}'; it takes: {', '.join(_SCHEDULE_KEYS)}")
    return dict(config)


def _noise_tables(beta_schedule: str = "linear", timesteps: int = 1000, **shape: float) -> dict[str, np.ndarray]:
    """The schedule's tables under the names of released checkpoints, each float64 [timesteps]."""
    betas = make_beta_schedule(beta_schedule, timesteps, **shape)
    acp = np.cumprod(1.0 - betas)
    return {
        "betas": betas,
        "alphas_cumprod": acp,
        "alphas_cumprod_prev": np.append(1.0, acp[:-1]),
        "sqrt_alphas_cumprod": np.sqrt(acp),
        "sqrt_one_minus_alphas_cumprod": np.sqrt(1.0 - acp),
        "log_one_minus_alphas_cumprod": np.log(1.0 - acp),
        "sqrt_recip_alphas_cumprod": np.sqrt(1.0 / acp),
        "sqrt_recipm1_alphas_cumprod": np.sqrt(1.0 / acp - 1),
    }

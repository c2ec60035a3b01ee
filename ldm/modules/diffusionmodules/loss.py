"""The loss of a preconditioned network: how far the clean latent that it sees is from the true one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ldm.modules.diffusionmodules.denoiser import Denoiser
from ldm.util import ConfigError, instantiate_from_config


class StandardDiffusionLoss(nn.Module):
    """mean of w(sigma) |D(x0 + sigma n, sigma) - x0|^2 over a latent (Karras et al. 2022, equation 8).

    Args:
        sigma_sampler_config: which sigmas are drawn, one a row.
        loss_weighting_config: w; without it that of the denoiser, where YAMLs of 2023-07 have it.
        loss_type: l2, or l1 for the absolute value; ``type`` is its name in YAMLs of 2023-07.
        offset_noise_level: of noise that is one number a channel of a row, or, with ``type``, one a row.
        batch2model_keys: entries of a batch that the network is given as they are.
        n_frames: rows of one film, which get the same sigma.
    """

    def __init__(
        self,
        sigma_sampler_config: Mapping[str, Any],
        loss_weighting_config: Mapping[str, Any] | None = None,
        loss_type: str | None = None,
        type: str | None = None,
        offset_noise_level: float = 0.0,
        batch2model_keys: str | Sequence[str] | None = None,
        n_frames: int | None = None,
    ) -> None:
        """Raises ConfigError: an unknown ``loss_type``."""
        super().__init__()
        self.sigma_sampler = instantiate_from_config(sigma_sampler_config)
        self.weighting = None if loss_weighting_config is None else instantiate_from_config(loss_weighting_config)
        self.loss_type = loss_type or type or "l2"
        if self.loss_type not in ("l1", "l2"):
            raise ConfigError(f"unknown loss_type '{self.loss_type}'; known: l1, l2 (LPIPS on latents is not here)")
        self.offset_noise_level = offset_noise_level
        self.offset_axes = 1 if type is not None and loss_type is None else 2
        keys = [batch2model_keys] if isinstance(batch2model_keys, str) else batch2model_keys
        self.batch2model_keys = tuple(keys or ())
        self.n_frames = n_frames

    def draw_sigmas(self, rows: int) -> Tensor:
        """A noise level for each row, [rows] on the CPU."""
        films = self.n_frames or 1
        return self.sigma_sampler(rows // films).repeat_interleave(films)

    def draw_noise(self, like: Tensor) -> Tensor:
        """Standard normal noise of the shape of ``like`` [B, C, h, w], with its offset."""
        noise = torch.randn(like.shape, dtype=like.dtype, device=like.device)
        if self.offset_noise_level:
            rows = like.shape[: self.offset_axes]
            offset = torch.randn(rows, dtype=like.dtype, device=like.device)
            noise = noise + self.offset_noise_level * offset.reshape(*rows, *[1] * (like.dim() - len(rows)))
        return noise

    def forward(
        self,
        denoiser: Denoiser,
        network: Callable[..., Tensor],
        x0: Tensor,
        cond: Any,
        sigmas: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """The loss of each row, [B], for clean latents [B, C, h, w].

        Args:
            network: of scaled latents, what it is told [B], and ``cond``.
            sigmas, noise: in place of drawn ones, [B] and like ``x0``.

        Raises:
            ConfigError: nobody says how much a sigma counts.
        """
        sigmas = (self.draw_sigmas(len(x0)) if sigmas is None else sigmas).to(x0.device)
        noise = self.draw_noise(x0) if noise is None else noise
        wide = sigmas.reshape(-1, *[1] * (x0.dim() - 1))
        seen = denoiser(network, x0 + wide * noise, sigmas, cond)
        weighting = self.weighting or denoiser.weighting
        if weighting is None:
            raise ConfigError("the loss has no 'loss_weighting_config', and the denoiser no 'weighting_config' either")
        error = (seen - x0).abs() if self.loss_type == "l1" else (seen - x0).square()
        return (weighting(wide) * error).flatten(1).mean(dim=1)

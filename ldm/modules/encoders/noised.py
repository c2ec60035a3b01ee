"""Conditions that are given with noise and its level: the latent of a small picture, the embedding of a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.checkpoint import read_file
from ldm.modules.diffusionmodules.upscaling import AbstractLowScaleModel, ImageConcatWithNoiseAugmentation
from ldm.modules.diffusionmodules.util import timestep_embedding
from ldm.util import UserError, instantiate_from_config


class LowScaleEncoder(AbstractLowScaleModel):
    """A small picture's latent, noised to a random level, for an up-scaler conditioned on it.

    Args:
        model_config: the autoencoder.
        max_noise_level: levels lie below it.
        output_size: the latent is resized to this height and width; None to keep its own.
        scale_factor: on the latent.
    """

    def __init__(
        self,
        model_config: Mapping[str, Any],
        linear_start: float = 1e-4,
        linear_end: float = 2e-2,
        timesteps: int = 1000,
        max_noise_level: int = 250,
        output_size: int | None = 64,
        scale_factor: float = 1.0,
    ) -> None:
        super().__init__({"linear_start": linear_start, "linear_end": linear_end, "timesteps": timesteps})
        self.model = instantiate_from_config(model_config)
        self.max_noise_level = max_noise_level
        self.output_size = output_size
        self.scale_factor = scale_factor

    def forward(
        self, x: Tensor, noise_level: Tensor | None = None, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Pictures [B, 3, H, W] -> noisy latents [B, C, output_size, output_size] and their levels [B]."""
        z = self.scale_factor * self.model.encode(x).sample()
        if noise_level is None:
            noise_level = torch.randint(0, self.max_noise_level, z.shape[:1], device="cpu")
        z = self.q_sample(z, noise_level.to(z.device), noise)
        if self.output_size is not None:
            z = F.interpolate(z, size=self.output_size, mode="nearest")
        return z, noise_level.to(z.device)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures [B, 3, H, W] in [-1, 1] -> noisy latents and their random levels [B], as ``forward``."""
        return self(x)

    def decode(self, x: Tensor) -> Tensor:
        """Scaled latents [B, C, h, w] -> pictures [B, 3, H, W] in [-1, 1]."""
        return self.model.decode(x / self.scale_factor)


class CLIPEmbeddingNoiseAugmentation(ImageConcatWithNoiseAugmentation):
    """Image embeddings [B, D] with noise, and features of the noise's level [B, timestep_dim] (Ramesh et al. 2022).

    Noise is added to embeddings that are brought to mean 0 and variance 1 for it.

    Args:
        noise_schedule_config: see ``AbstractLowScaleModel``; the schedule "squaredcos_cap_v2" is "cosine".
        max_noise_level: random levels lie below it.
        timestep_dim: D, and the length of the level's features.
        clip_stats_path: a file with the mean [D] and standard deviation [D] of embeddings, read at the first use;
            None for 0 and 1.
    """

    def __init__(
        self,
        noise_schedule_config: Mapping[str, Any],
        max_noise_level: int = 1000,
        to_cuda: bool = False,
        timestep_dim: int = 256,
        clip_stats_path: str | None = None,
    ) -> None:
        schedule = dict(noise_schedule_config)
        if schedule.get("beta_schedule") == "squaredcos_cap_v2":
            schedule["beta_schedule"] = "cosine"
        super().__init__(schedule, max_noise_level=max_noise_level)
        self.timestep_dim = timestep_dim
        self.clip_stats_path = clip_stats_path
        self._stats: tuple[Tensor, Tensor] | None = None

    def forward(
        self, x: Tensor, noise_level: Tensor | None = None, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        mean, std = (value.to(x) for value in self.statistics())
        noisy, noise_level = super().forward((x - mean) / std, noise_level, noise)
        return noisy * std + mean, timestep_embedding(noise_level, self.timestep_dim)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean [D] and standard deviation [D] of image embeddings.

        Raises:
            UserError: there is no such file, or it does not hold two vectors.
        """
        if self._stats is None:
            self._stats = self._read_statistics()
        return self._stats

    def _read_statistics(self) -> tuple[Tensor, Tensor]:
        dim = self.timestep_dim
        if self.clip_stats_path is None:
            return torch.zeros(dim, device="cpu"), torch.ones(dim, device="cpu")
        if not Path(self.clip_stats_path).is_file():
            raise UserError(
                f"'{self.clip_stats_path}', the mean and deviation of image embeddings, does not exist; "
                "put the file there or give its path as 'clip_stats_path'"
            )
        stats = read_file(self.clip_stats_path)
        vectors = [value.float().reshape(-1) for value in stats] if isinstance(stats, (tuple, list)) else []
        if [len(vector) for vector in vectors] != [dim, dim]:
            raise UserError(
                f"'{self.clip_stats_path}' does not hold two vectors of {dim} numbers, a mean and a deviation"
            )
        return vectors[0], vectors[1]

"""Encoders of a film's first frame: what it shows, and how it looks (Blattmann et al. 2023, Stable Video Diffusion)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ldm.modules.cpu.held import computing_dtype
from ldm.modules.distributions.distributions import DiagonalGaussianDistribution
from ldm.modules.encoders.base import AbstractEncoder
from ldm.modules.encoders.needs import Need
from ldm.util import instantiate_from_config

FRAMES = Need("image", "pictures [B, 3, H, W] in [-1, 1]", 3)


class FrozenOpenCLIPImagePredictionEmbedder(AbstractEncoder):
    """Given frames in CLIP's shared space as a context: [B n_cond_frames, 3, H, W] -> [B n_copies, n_cond_frames, D].

    Args:
        open_clip_embedding_config: the image encoder.
        n_cond_frames: given frames of a film.
        n_copies: how often each film's context is repeated.
    """

    takes = FRAMES

    def __init__(self, open_clip_embedding_config: Mapping[str, Any], n_cond_frames: int, n_copies: int) -> None:
        super().__init__()
        self.n_cond_frames, self.n_copies = n_cond_frames, n_copies
        self.open_clip = instantiate_from_config(open_clip_embedding_config)

    def forward(self, pictures: Tensor) -> Tensor:
        embedded: Tensor = self.open_clip(pictures)
        return embedded.unflatten(0, (-1, self.n_cond_frames)).repeat_interleave(self.n_copies, dim=0)


class VideoPredictionEmbedderWithEncoder(AbstractEncoder):
    """Given frames as latents beside the film's own: [B n_cond_frames, 3, H, W] -> [B n_copies, n_cond_frames C, h, w].

    Args:
        n_cond_frames, n_copies: as in :class:`FrozenOpenCLIPImagePredictionEmbedder`.
        encoder_config: an autoencoder; of a posterior the mean is taken.
        sigma_sampler_config: draws how much noise the frames of a film get; without it they are taken as they are.
        sigma_cond_config: tells it; [B n_copies, D] is then given beside the latents.
        is_ae: accepted for SVD's YAML: whatever has an ``encode`` is asked for that.
        scale_factor: of the latents.
        disable_encoder_autocast: encode in the precision of the weights.
        en_and_decode_n_samples_a_time: frames that are encoded at once; None: all.
    """

    takes = FRAMES

    def __init__(
        self,
        n_cond_frames: int,
        n_copies: int,
        encoder_config: Mapping[str, Any],
        sigma_sampler_config: Mapping[str, Any] | None = None,
        sigma_cond_config: Mapping[str, Any] | None = None,
        is_ae: bool = False,
        scale_factor: float = 1.0,
        disable_encoder_autocast: bool = False,
        en_and_decode_n_samples_a_time: int | None = None,
    ) -> None:
        super().__init__()
        self.n_cond_frames, self.n_copies = n_cond_frames, n_copies
        self.encoder = instantiate_from_config(encoder_config)
        self.sigma_sampler = None if sigma_sampler_config is None else instantiate_from_config(sigma_sampler_config)
        self.sigma_cond = None if sigma_cond_config is None else instantiate_from_config(sigma_cond_config)
        self.scale_factor = scale_factor
        self.disable_encoder_autocast = disable_encoder_autocast
        self.at_once = en_and_decode_n_samples_a_time

    def forward(self, pictures: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        told = None
        if self.sigma_sampler is not None:
            sigmas = self.sigma_sampler(len(pictures) // self.n_cond_frames).to(pictures.device)
            told = None if self.sigma_cond is None else self.sigma_cond(sigmas).repeat_interleave(self.n_copies, dim=0)
            amount = sigmas.repeat_interleave(self.n_cond_frames)[:, None, None, None]
            pictures = pictures + amount * torch.randn_like(pictures)
        encoded = [self._encoded(some) for some in pictures.split(self.at_once or len(pictures))]
        latents = self.scale_factor * torch.cat(encoded)
        beside = latents.unflatten(0, (-1, self.n_cond_frames)).flatten(1, 2).repeat_interleave(self.n_copies, dim=0)
        return beside if told is None else (beside, told)

    def _encoded(self, pictures: Tensor) -> Tensor:
        kind = pictures.device.type
        enabled = torch.is_autocast_enabled(kind) and not self.disable_encoder_autocast
        dtype = computing_dtype(self.encoder)
        with torch.autocast(kind, enabled=enabled):
            encoded = self.encoder.encode(pictures.to(dtype))
        return (encoded.mode() if isinstance(encoded, DiagonalGaussianDistribution) else encoded).float()

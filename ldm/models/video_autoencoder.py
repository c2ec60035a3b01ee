"""The first stage of films: an encoder of pictures, and a decoder in which frames see their neighbours.

Source: Blattmann et al. 2023, "Stable Video Diffusion": the decoder of an image autoencoder gets temporal layers, which
are trained while the encoder, and with it the latent space, stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ldm.models.autoencoder_training import TrainedAutoencoder
from ldm.models.first_stage import KLAutoencoder
from ldm.modules.distributions.distributions import DiagonalGaussianDistribution
from ldm.util import ConfigError, instantiate_from_config

IDENTITY = {"target": "torch.nn.Identity"}


class ModeOnlyKL(KLAutoencoder):
    """A KL autoencoder whose latents are the means of its posteriors."""

    def encode(self, x: Tensor) -> DiagonalGaussianDistribution:
        return DiagonalGaussianDistribution(super().encode(x).parameters, deterministic=True)


class MeanEncoder(nn.Module):
    """The half of an autoencoder that shows a film's network the first frame.

    Args:
        encoder_config: a network whose output is means and log-variances.
    """

    def __init__(self, encoder_config: dict[str, Any]) -> None:
        super().__init__()
        self.encoder = instantiate_from_config(encoder_config)

    def encode(self, x: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] in [-1, 1] -> means of posteriors over latents [B, C, H/f, W/f]."""
        return DiagonalGaussianDistribution(self.encoder(x)).mode()


class VideoAutoencoder(TrainedAutoencoder):
    """Pictures to latents, and the latents of a clip's frames to pictures.

    A training batch holds ``frames`` [B, T, H, W, 3] in [-1, 1].

    Args:
        encoder_config, decoder_config: networks; what a KL autoencoder has between them is not here.
        loss_config: as ``lossconfig`` of the other autoencoders.
        regularizer_config: how the encoder's moments are read; None: as a Gaussian, of which a sample is taken.
        frames: T of the training clips.
        trained: "temporal" (the layers that a decoder of pictures does not have) or "decoder".
    """

    def __init__(
        self,
        encoder_config: dict[str, Any],
        decoder_config: dict[str, Any],
        loss_config: dict[str, Any] | None = None,
        regularizer_config: dict[str, Any] | None = None,
        ckpt_path: str | None = None,
        ignore_keys: Sequence[str] = (),
        input_key: str = "frames",
        frames: int = 8,
        trained: Literal["temporal", "decoder"] = "temporal",
        monitor: str | None = None,
        ema_decay: float | None = None,
        scheduler_config: dict[str, Any] | None = None,
        lr_g_factor: float = 1.0,
    ) -> None:
        """Raises ConfigError: the encoder gives no mean and log-variance."""
        encoder, decoder = instantiate_from_config(encoder_config), instantiate_from_config(decoder_config)
        if not encoder_config["params"].get("double_z", True):
            raise ConfigError("AutoencodingEngine needs double_z: true in encoder_config, for means and log-variances")
        networks = (encoder, decoder)
        super().__init__(networks, loss_config or IDENTITY, input_key, None, monitor, scheduler_config, lr_g_factor)
        self.regularization = None if regularizer_config is None else instantiate_from_config(regularizer_config)
        self.frames = frames
        self.encoder.requires_grad_(False)
        for name, parameter in self.decoder.named_parameters():
            parameter.requires_grad_(trained == "decoder" or is_temporal_of_decoder(name))
        self.keep_average(ema_decay)
        self.init_from_ckpt(ckpt_path, ignore_keys)

    def encode(self, x: Tensor) -> DiagonalGaussianDistribution:
        """Pictures [B, 3, H, W] in [-1, 1] -> posterior over latents [B, C, H/f, W/f]."""
        moments = self.encoder(x)
        return DiagonalGaussianDistribution(moments) if self.regularization is None else self.regularization(moments)

    def decode(self, z: Tensor, timesteps: int | None = None, skip_video: bool = False) -> Tensor:
        """Latents [clips T, C, h, w] (not times scale_factor) -> pictures [clips T, 3, h f, w f].

        Args:
            timesteps: T; None: all rows are one clip.
            skip_video: decode each frame alone.
        """
        return self.decoder(z, timesteps=timesteps, skip_video=skip_video)

    def get_input(self, batch: Mapping[str, Any], key: str | None = None) -> Tensor:
        clips = batch[key or self.image_key]
        return super().get_input({self.image_key: clips.flatten(0, 1)}, self.image_key)

    def reconstruct(self, x: Tensor) -> tuple[Tensor, Any, dict[str, Any]]:
        with torch.no_grad():
            posterior = self.encode(x)
        return self.decode(posterior.sample(), timesteps=min(self.frames, len(x))), posterior, {}

    def trained_parameters(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.decoder.parameters() if parameter.requires_grad]


def is_temporal_of_decoder(name: str) -> bool:
    """Whether a decoder of pictures does not have a parameter."""
    temporal = ("time_stack", "mix_factor", "time_mix_conv", "time_mix_block", "video_time_embed")
    return any(part in temporal for part in name.split("."))

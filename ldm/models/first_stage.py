"""The first stage: autoencoders between pictures and the latents that a diffusion model works on.

The networks and all they can do, without Lightning: ``ldm.models.autoencoder`` has the classes that a Trainer takes.
Sources: Rombach et al. 2022 (KL and VQ regularisation), Esser et al. 2021 (VQ with a discriminator).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ldm.models.autoencoder_training import TrainedAutoencoder
from ldm.modules.distributions.distributions import DiagonalGaussianDistribution
from ldm.modules.quantize import VectorQuantizer
from ldm.util import ConfigError

__all__ = ["IdentityFirstStage", "KLAutoencoder", "VQAutoencoder", "VQInterface"]


class KLAutoencoder(TrainedAutoencoder):
    """Latents are samples of a Gaussian that the encoder describes, held near the standard normal by a KL term."""

    def __init__(
        self,
        ddconfig: dict[str, Any],  # networks: see ldm.modules.diffusionmodules.model.AutoencoderShape
        lossconfig: dict[str, Any],
        embed_dim: int,  # channels of the latent
        ckpt_path: str | None = None,
        ignore_keys: Sequence[str] = (),
        image_key: str = "image",
        colorize_nlabels: int | None = None,  # pictures with other than 3 channels are shown in random colours
        monitor: str | None = None,
        ema_decay: float | None = None,
        learn_logvar: bool = False,  # train the loss's log-variance too
        scheduler_config: dict[str, Any] | None = None,
        lr_g_factor: float = 1.0,  # the autoencoder's learning rate in units of the discriminator's
        only_decoder: bool = False,  # latents stay as they are, so that a diffusion model on them still fits
        latent_noise: float = 0.0,  # in training, largest deviation of what is added to the latents of a picture
    ) -> None:
        """Raises ConfigError: ``ddconfig`` does not describe an encoder of means and log-variances."""
        super().__init__(ddconfig, lossconfig, image_key, colorize_nlabels, monitor, scheduler_config, lr_g_factor)
        if not ddconfig.get("double_z", True):
            raise ConfigError("AutoencoderKL needs double_z: true in ddconfig, for means and log-variances")
        width = ddconfig["z_channels"]
        self.embed_dim = embed_dim
        self.learn_logvar = learn_logvar
        self.latent_noise = latent_noise
        self.quant_conv = nn.Conv2d(2 * width, 2 * embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(embed_dim, width, 1)
        if ddconfig.get("patch_transform", False):
            _pass_through(self.quant_conv)
            _pass_through(self.post_quant_conv)
        if only_decoder:
            self.encoder.requires_grad_(False)
            self.quant_conv.requires_grad_(False)
        self.keep_average(ema_decay)
        self.init_from_ckpt(ckpt_path, ignore_keys)

    def encode(self, x: torch.Tensor) -> DiagonalGaussianDistribution:
        """Pictures [B,3,H,W] in [-1,1] -> posterior over latents [B,embed_dim,H/f,W/f]."""
        return DiagonalGaussianDistribution(self.quant_conv(self.encoder(x)))

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Latents [B,embed_dim,h,w] (not times scale_factor) -> pictures [B,3,h*f,w*f]."""
        return self.decoder(self.post_quant_conv(z))

    def forward(
        self, x: torch.Tensor, sample_posterior: bool = True
    ) -> tuple[torch.Tensor, DiagonalGaussianDistribution]:
        """Pictures [B, C, H, W] -> reconstructions of a sample of the posterior (or its mean), and the posterior."""
        posterior = self.encode(x)
        return self.decode(posterior.sample() if sample_posterior else posterior.mode()), posterior

    def reconstruct(self, x: torch.Tensor) -> tuple[torch.Tensor, DiagonalGaussianDistribution, dict[str, Any]]:
        if not (self.training and self.latent_noise):
            reconstructions, posterior = self(x)
            return reconstructions, posterior, {}
        posterior = self.encode(x)
        z = posterior.sample()
        # a sampler's latents are a little off; each picture gets its own amount, so that none is expected
        amount = self.latent_noise * torch.rand(len(z), 1, 1, 1, device=z.device)
        return self.decode(z + amount * torch.randn(z.shape, device=z.device)), posterior, {}

    def trained_parameters(self) -> list[nn.Parameter]:
        own = [parameter for parameter in super().trained_parameters() if parameter.requires_grad]
        return [*own, self.loss.logvar] if self.learn_logvar else own

    def more_images(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Pictures of pure noise latents, shaped like those of ``x``, besides those of the average."""
        return {"samples": self.decode(torch.randn_like(self.encode(x).mode())), **super().more_images(x)}


class VQAutoencoder(TrainedAutoencoder):
    """Latents are vectors of a codebook."""

    def __init__(
        self,
        ddconfig: dict[str, Any],  # networks: see ldm.modules.diffusionmodules.model.AutoencoderShape
        lossconfig: dict[str, Any],
        n_embed: int,  # how many codes
        embed_dim: int,  # channels of the latent
        ckpt_path: str | None = None,
        ignore_keys: Sequence[str] = (),
        image_key: str = "image",
        colorize_nlabels: int | None = None,
        monitor: str | None = None,
        batch_resize_range: Sequence[int] | None = None,  # train on sizes between these two, in steps of 16
        scheduler_config: dict[str, Any] | None = None,
        lr_g_factor: float = 1.0,
        remap: str | None = None,  # see VectorQuantizer
        sane_index_shape: bool = False,
        use_ema: bool = False,
    ) -> None:
        """Raises ConfigError: ``ddconfig`` describes an encoder with log-variances."""
        super().__init__(ddconfig, lossconfig, image_key, colorize_nlabels, monitor, scheduler_config, lr_g_factor)
        if ddconfig.get("double_z", True):
            raise ConfigError("a VQ autoencoder needs double_z: false in ddconfig: its latents have no log-variance")
        width = ddconfig["z_channels"]
        self.embed_dim, self.n_embed = embed_dim, n_embed
        self.batch_resize_range = batch_resize_range
        self.quantize = VectorQuantizer(n_embed, embed_dim, 0.25, remap=remap, sane_index_shape=sane_index_shape)
        self.quant_conv = nn.Conv2d(width, embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(embed_dim, width, 1)
        if ddconfig.get("patch_transform", False):
            _pass_through(self.quant_conv)
            _pass_through(self.post_quant_conv)
        self.keep_average(0.9999 if use_ema else None)
        self.init_from_ckpt(ckpt_path, ignore_keys)

    def encode_to_prequant(self, x: torch.Tensor) -> torch.Tensor:
        """Pictures [B,3,H,W] in [-1,1] -> latents [B,embed_dim,H/f,W/f] before quantisation."""
        return self.quant_conv(self.encoder(x))

    def encode(self, x: torch.Tensor) -> Any:
        """Pictures -> (codes [B,embed_dim,H/f,W/f], codebook loss, (None, None, indices))."""
        return self.quantize(self.encode_to_prequant(x))

    def decode(self, quant: torch.Tensor) -> torch.Tensor:
        """Codes [B,embed_dim,h,w] -> pictures [B,3,h*f,w*f]."""
        return self.decoder(self.post_quant_conv(quant))

    def decode_code(self, indices: torch.Tensor) -> torch.Tensor:
        """Indices [B,h,w] into the codebook -> pictures."""
        return self.decode(self.quantize.get_codebook_entry(indices.flatten(), (*indices.shape, self.embed_dim)))

    def forward(self, x: torch.Tensor, return_pred_indices: bool = False) -> tuple[torch.Tensor, ...]:
        """Pictures [B, C, H, W] -> reconstructions, codebook loss (a number) and, if asked for, indices."""
        quant, loss, (_, _, indices) = self.quantize(self.encode_to_prequant(x))
        decoded = self.decode(quant)
        return (decoded, loss, indices) if return_pred_indices else (decoded, loss)

    def reconstruct(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
        reconstructions, loss, indices = self(x, return_pred_indices=True)
        return reconstructions, loss, {"predicted_indices": indices}

    def trained_parameters(self) -> list[nn.Parameter]:
        return [*super().trained_parameters(), *self.quantize.parameters()]

    def resized(self, x: torch.Tensor) -> torch.Tensor:
        """A training batch [B, C, H, W] as squares of a random size of ``batch_resize_range``, in steps of 16.

        The first batches are of the largest size: memory should fail early.
        """
        if self.batch_resize_range is None:
            return x
        low, high = self.batch_resize_range
        choices = list(range(low, high + 16, 16))
        pick = int(torch.randint(len(choices), ())) if self.batches_seen > 4 else -1
        size = choices[pick] if pick >= 0 else high
        return x if size == x.shape[2] else F.interpolate(x, size=size, mode="bicubic").detach()


class VQInterface(VQAutoencoder):
    """A VQ autoencoder as a diffusion model sees it: it works on latents before quantisation, decoding quantises."""

    def __init__(
        self, embed_dim: int, ddconfig: dict[str, Any], lossconfig: dict[str, Any], n_embed: int, **options: Any
    ) -> None:
        """``options`` are those of ``VQAutoencoder``."""
        super().__init__(ddconfig, lossconfig, n_embed, embed_dim, **options)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Pictures [B,3,H,W] in [-1,1] -> latents [B,embed_dim,H/f,W/f], not quantised."""
        return self.encode_to_prequant(x)

    def decode(self, h: torch.Tensor, force_not_quantize: bool = False) -> torch.Tensor:
        """Latents [B,embed_dim,h,w] -> pictures, by way of the nearest codes unless told otherwise."""
        return super().decode(h if force_not_quantize else self.quantize(h)[0])


class IdentityFirstStage(nn.Module):
    """No autoencoder: the diffusion model works on pictures."""

    factor = 1  # a latent is as large as the picture

    def __init__(self, *args: Any, vq_interface: bool = False, **kwargs: Any) -> None:
        """``vq_interface``: ``quantize`` gives the triple of a VQ model; other arguments are accepted for old YAMLs."""
        super().__init__()
        self.vq_interface = vq_interface

    def encode(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """``x`` itself."""
        return x

    def decode(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """``x`` itself."""
        return x

    def quantize(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """``x`` itself, or (x, None, [None, None, None])."""
        return (x, None, [None, None, None]) if self.vq_interface else x

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """``x`` itself."""
        return x


def _pass_through(layer: nn.Conv2d) -> None:
    """Make a 1x1 convolution start as the identity, so that the patch transform reaches the latent as it is."""
    nn.init.dirac_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)

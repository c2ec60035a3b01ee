"""The autoencoders under their public names, as Lightning modules; what they do is in ``ldm.models.first_stage``."""

from __future__ import annotations

import pytorch_lightning as pl

from ldm.models import first_stage, video_autoencoder
from ldm.models.first_stage import IdentityFirstStage

__all__ = [
    "AutoencoderKL",
    "AutoencoderKLModeOnly",
    "AutoencodingEngine",
    "IdentityFirstStage",
    "VQModel",
    "VQModelInterface",
]


class AutoencoderKL(first_stage.KLAutoencoder, pl.LightningModule):
    """Latents are samples of a Gaussian that the encoder describes, held near the standard normal by a KL term."""


class AutoencoderKLModeOnly(video_autoencoder.ModeOnlyKL, AutoencoderKL):
    """The same, whose latents are the means."""


class AutoencodingEngine(video_autoencoder.VideoAutoencoder, pl.LightningModule):
    """An encoder of pictures, and a decoder of the frames of clips."""


class VQModel(first_stage.VQAutoencoder, pl.LightningModule):
    """Latents are vectors of a codebook."""


class VQModelInterface(first_stage.VQInterface, VQModel):
    """A VQ autoencoder as a diffusion model sees it: it works on latents before quantisation, decoding quantises."""

"""The autoencoders under their public names, as Lightning modules; what they do is in ``ldm.models.first_stage``."""

from __future__ import annotations

import pytorch_lightning as pl

from ldm.models import first_stage
from ldm.models.first_stage import IdentityFirstStage

__all__ = ["AutoencoderKL", "IdentityFirstStage", "VQModel", "VQModelInterface"]


class AutoencoderKL(first_stage.KLAutoencoder, pl.LightningModule):
    """Latents are samples of a Gaussian that the encoder describes, held near the standard normal by a KL term."""


class VQModel(first_stage.VQAutoencoder, pl.LightningModule):
    """Latents are vectors of a codebook."""


class VQModelInterface(first_stage.VQInterface, VQModel):
    """A VQ autoencoder as a diffusion model sees it: it works on latents before quantisation, decoding quantises."""

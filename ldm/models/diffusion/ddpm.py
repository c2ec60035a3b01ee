"""The diffusion models under their public names, as Lightning modules.

What they do is in ``ldm.models.diffusion.base`` and ``ldm.models.diffusion.latent``.
"""

from __future__ import annotations

import importlib
from typing import Any

import pytorch_lightning as pl

from ldm.models.diffusion.base import DiffusionModel
from ldm.models.diffusion.latent import LatentModel
from ldm.models.diffusion.wrapper import DiffusionWrapper

__all__ = ["DDPM", "DiffusionWrapper", "LatentDiffusion"]

# Public YAMLs name these here; they live in a file of their own, which imports this one.
VARIANTS = (
    "LatentInpaintDiffusion",
    "LatentUpscaleDiffusion",
    "LatentUpscaleFinetuneDiffusion",
    "LatentDepth2ImageDiffusion",
    "LatentFinetuneDiffusion",
    "ImageEmbeddingConditionedLatentDiffusion",
)


def __getattr__(name: str) -> Any:
    if name in VARIANTS:
        return getattr(importlib.import_module("ldm.models.diffusion.variants"), name)
    raise AttributeError(f"module '{__name__}' has no '{name}'")


class DDPM(DiffusionModel, pl.LightningModule):
    """Denoising diffusion on images or latents x0 [B, C, H, W], without a condition."""


class LatentDiffusion(LatentModel, DDPM):
    """Diffusion in the latent space of an autoencoder, under a condition (Rombach et al. 2022, equation 3)."""

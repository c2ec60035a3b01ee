"""The diffusion models under their public names, as Lightning modules: a model, its hooks, and Lightning.

What they do is in ``network``, ``loss``, ``latent``, ``variants`` and ``noised_variants`` beside this file, which need
no Lightning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl

from ldm.models.diffusion import engine, noised_variants, variants, video
from ldm.models.diffusion.lightning import DiffusionHooks, LatentHooks
from ldm.models.diffusion.network import DiffusionWrapper
from ldm.models.diffusion.parting import part
from ldm.models.diffusion.preview import film_previews

__all__ = [
    "DDPM",
    "DiffusionEngine",
    "DiffusionWrapper",
    "ImageEmbeddingConditionedLatentDiffusion",
    "LatentDepth2ImageDiffusion",
    "LatentDiffusion",
    "LatentFinetuneDiffusion",
    "LatentInpaintDiffusion",
    "LatentUpscaleDiffusion",
    "LatentUpscaleFinetuneDiffusion",
    "LatentVideoDiffusion",
]


class DDPM(DiffusionHooks, pl.LightningModule):
    """Denoising diffusion on images or latents x0 [B, C, H, W], without a condition."""

    def configure_model(self) -> None:
        """Lightning's, when the processes have found each other: a strategy that parts a model has a mesh of them."""
        if self.device_mesh is not None:
            part(self.model.diffusion_model, self.device_mesh)


class LatentDiffusion(LatentHooks, DDPM):
    """Diffusion in the latent space of an autoencoder, under a condition (Rombach et al. 2022, equation 3)."""


class LatentFinetuneDiffusion(variants.FinetuneModel, LatentDiffusion):
    """A text-to-image model with further input channels."""


class LatentInpaintDiffusion(variants.InpaintModel, LatentFinetuneDiffusion):
    """Fills the masked part of a picture."""


class LatentDepth2ImageDiffusion(variants.DepthModel, LatentFinetuneDiffusion):
    """A new picture with the depth of a given one."""


class LatentVideoDiffusion(video.VideoModel, LatentFinetuneDiffusion):
    """Films from a first frame, or between two."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["state_dict"] = self.part_to_save(checkpoint["state_dict"])

    def previews(self, batch: Mapping[str, Any], N: int, sample: bool, **options: Any) -> dict[str, Any]:
        return film_previews(self, batch, N, sample, **options)


class LatentUpscaleFinetuneDiffusion(noised_variants.UpscaleFinetuneModel, LatentFinetuneDiffusion):
    """Up-scaling on top of a text-to-image model."""


class LatentUpscaleDiffusion(noised_variants.UpscaleModel, LatentDiffusion):
    """A picture four times as large."""


class ImageEmbeddingConditionedLatentDiffusion(noised_variants.ImageEmbeddingModel, LatentDiffusion):
    """Variations of a picture."""


class DiffusionEngine(engine.EngineModel, LatentDiffusion):
    """Levels of sigma and a condition of several encoders: Stable Diffusion XL and its relatives."""

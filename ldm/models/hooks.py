"""What models are made of: modules that Lightning can train, without importing Lightning to use them.

Importing Lightning takes about three seconds, which a command that makes one picture need not wait for. So a model's
class derives from ``Hooked``, a plain torch module, and has Lightning's hooks (``training_step``,
``configure_optimizers``, ...) as ordinary methods; its public class, which YAMLs name and a Trainer takes, adds
``LightningModule`` behind it and nothing else. ``without_lightning`` finds the one for the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule as Hooked
else:
    from torch.nn import Module as Hooked

__all__ = ["Hooked", "without_lightning"]

# public class -> the same without LightningModule
PLAIN = {
    "ldm.models.autoencoder.AutoencoderKL": "ldm.models.first_stage.KLAutoencoder",
    "ldm.models.autoencoder.IdentityFirstStage": "ldm.models.first_stage.IdentityFirstStage",
    "ldm.models.autoencoder.VQModel": "ldm.models.first_stage.VQAutoencoder",
    "ldm.models.autoencoder.VQModelInterface": "ldm.models.first_stage.VQInterface",
    "ldm.models.diffusion.ddpm.DDPM": "ldm.models.diffusion.loss.DiffusionModel",
    "ldm.models.diffusion.ddpm.LatentDiffusion": "ldm.models.diffusion.latent.LatentModel",
    "ldm.models.diffusion.ddpm.LatentFinetuneDiffusion": "ldm.models.diffusion.variants.FinetuneModel",
    "ldm.models.diffusion.ddpm.LatentInpaintDiffusion": "ldm.models.diffusion.variants.InpaintModel",
    "ldm.models.diffusion.ddpm.LatentDepth2ImageDiffusion": "ldm.models.diffusion.variants.DepthModel",
    "ldm.models.diffusion.ddpm.LatentUpscaleFinetuneDiffusion": "ldm.models.diffusion.variants.UpscaleFinetuneModel",
    "ldm.models.diffusion.ddpm.LatentUpscaleDiffusion": "ldm.models.diffusion.variants.UpscaleModel",
    "ldm.models.diffusion.ddpm.ImageEmbeddingConditionedLatentDiffusion": (
        "ldm.models.diffusion.variants.ImageEmbeddingModel"
    ),
}


def without_lightning(node: Any) -> Any:
    """A configuration (nested mappings and lists) with every target that has a plain class replaced by that."""
    if isinstance(node, Mapping):
        changed = {key: without_lightning(value) for key, value in node.items()}
        if changed.get("target") in PLAIN:
            changed["target"] = PLAIN[changed["target"]]
        return changed
    return [without_lightning(value) for value in node] if isinstance(node, list) else node

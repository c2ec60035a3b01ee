"""What models are made of: modules that Lightning can train, without importing Lightning to use them.

Importing Lightning takes about three seconds, which a command that makes one picture need not wait for. So a model's
class derives from ``Hooked``, a plain torch module, and has Lightning's hooks (``training_step``,
``configure_optimizers``, ...) as ordinary methods; its public class, which YAMLs name and a Trainer takes, adds
``LightningModule`` behind it and nothing else. ``without_lightning`` finds the one for the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ldm.targets import current_name

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule as Hooked
else:
    from torch.nn import Module as Hooked

__all__ = ["Hooked", "without_lightning"]

_DIFFUSION = "ldm.models.diffusion"

# public class -> the same without LightningModule
PLAIN = {
    "ldm.models.autoencoder.AutoencoderKL": "ldm.models.first_stage.KLAutoencoder",
    "ldm.models.autoencoder.AutoencoderKLModeOnly": "ldm.models.video_autoencoder.ModeOnlyKL",
    "ldm.models.autoencoder.AutoencodingEngine": "ldm.models.video_autoencoder.VideoAutoencoder",
    "ldm.models.autoencoder.IdentityFirstStage": "ldm.models.first_stage.IdentityFirstStage",
    "ldm.models.autoencoder.VQModel": "ldm.models.first_stage.VQAutoencoder",
    "ldm.models.autoencoder.VQModelInterface": "ldm.models.first_stage.VQInterface",
    f"{_DIFFUSION}.ddpm.DDPM": f"{_DIFFUSION}.loss.DiffusionModel",
    f"{_DIFFUSION}.ddpm.LatentDiffusion": f"{_DIFFUSION}.latent.LatentModel",
    f"{_DIFFUSION}.ddpm.LatentFinetuneDiffusion": f"{_DIFFUSION}.variants.FinetuneModel",
    f"{_DIFFUSION}.ddpm.LatentInpaintDiffusion": f"{_DIFFUSION}.variants.InpaintModel",
    f"{_DIFFUSION}.ddpm.LatentDepth2ImageDiffusion": f"{_DIFFUSION}.variants.DepthModel",
    f"{_DIFFUSION}.ddpm.LatentVideoDiffusion": f"{_DIFFUSION}.video.VideoModel",
    f"{_DIFFUSION}.ddpm.LatentUpscaleFinetuneDiffusion": f"{_DIFFUSION}.noised_variants.UpscaleFinetuneModel",
    f"{_DIFFUSION}.ddpm.LatentUpscaleDiffusion": f"{_DIFFUSION}.noised_variants.UpscaleModel",
    f"{_DIFFUSION}.ddpm.DiffusionEngine": f"{_DIFFUSION}.engine.EngineModel",
    f"{_DIFFUSION}.ddpm.ImageEmbeddingConditionedLatentDiffusion": f"{_DIFFUSION}.noised_variants.ImageEmbeddingModel",
}


def without_lightning(node: Any) -> Any:
    """A configuration (nested mappings and lists) with every target that has a plain class replaced by that."""
    if isinstance(node, Mapping):
        changed = {key: without_lightning(value) for key, value in node.items()}
        target = changed.get("target")
        if isinstance(target, str) and current_name(target) in PLAIN:
            changed["target"] = PLAIN[current_name(target)]
        return changed
    return [without_lightning(value) for value in node] if isinstance(node, list) else node

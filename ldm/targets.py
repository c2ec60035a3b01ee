"""Names in public configurations that are elsewhere now, or that this project does not have.

Configurations outlive the code that they were written for. ``ldm.util.get_obj_from_str`` asks here: first whether a
name has moved, and, when it cannot be imported, whether it is known to be missing and what to use instead.
"""

from __future__ import annotations

COPY = "stable_diffusion.ldm"  # of the whole code, beside InstructPix2Pix

# old prefix -> new prefix
MOVED = {
    "taming.modules.losses.vqperceptual.VQLPIPSWithDiscriminator": "ldm.modules.losses.VQLPIPSWithDiscriminator",
    "taming.modules.losses.vqperceptual.DummyLoss": "ldm.modules.losses.DummyLoss",
    "ldm.modules.losses.contperceptual.DummyLoss": "ldm.modules.losses.DummyLoss",
    "ldm.data.pairs.SentencePairs": "ldm.data.sentence_pairs.SentencePairs",
    "ldm.data.photos.BundledPhotos": "ldm.world.photos.BundledPhotos",
    "ldm.training.words.EmbeddingSaver": "ldm.training.additions.AdditionFiles",
    "ldm.modules.layered_words.LayeredEmbeddingManager": "ldm.additions.layered_words.LayeredEmbeddingManager",
    "ldm.modules.timed_words.TimedEmbeddingManager": "ldm.additions.timed_words.TimedEmbeddingManager",
    "main.CUDACallback": "ldm.training.callbacks.CUDACallback",
    "main.DataModuleFromConfig": "ldm.training.datamodule.DataModuleFromConfig",
    "main.ImageLogger": "ldm.training.image_logger.ImageLogger",
    "main.SetupCallback": "ldm.training.callbacks.SetupCallback",
    "lightning.pytorch": "pytorch_lightning",
    # the code that was released with Stable Diffusion XL and Stable Video Diffusion
    COPY: "ldm",
    "strategies.DDPStrategy": "pytorch_lightning.strategies.DDPStrategy",  # ColossalAI's YAMLs
    "loggers.WandbLogger": "pytorch_lightning.loggers.WandbLogger",
    "sgm.models.autoencoder": "ldm.models.autoencoder",
    "sgm.models.autoencoder.AutoencoderKLInferenceWrapper": "ldm.models.autoencoder.AutoencoderKL",
    "sgm.models.diffusion.DiffusionEngine": "ldm.models.diffusion.ddpm.DiffusionEngine",
    "sgm.modules.GeneralConditioner": "ldm.modules.encoders.modules.GeneralConditioner",
    "sgm.modules.encoders.modules": "ldm.modules.encoders.modules",
    "sgm.modules.encoders.modules.ClassEmbedder": "ldm.modules.encoders.conditioner.LabelEmbedder",
    "sgm.modules.diffusionmodules": "ldm.modules.diffusionmodules",
    "sgm.modules.diffusionmodules.denoiser_weighting": "ldm.modules.diffusionmodules.loss_weighting",
    "sgm.modules.diffusionmodules.sampling": "ldm.models.diffusion.samplers.edm",
    "sgm.modules.autoencoding.regularizers": "ldm.modules.distributions.regularizers",
    "sgm.modules.autoencoding.temporal_ae": "ldm.modules.diffusionmodules.temporal_decoder",
    "sgm.lr_scheduler": "ldm.lr_scheduler",
    # and the names that it had before (2023-06)
    "ldm.models.autoencoder.AutoencoderKLInferenceWrapper": "ldm.models.autoencoder.AutoencoderKL",
    "ldm.models.diffusion.DiffusionEngine": "ldm.models.diffusion.ddpm.DiffusionEngine",
    "ldm.modules.GeneralConditioner": "ldm.modules.encoders.modules.GeneralConditioner",
    "ldm.modules.diffusionmodules.denoiser_weighting": "ldm.modules.diffusionmodules.loss_weighting",
    "ldm.modules.diffusionmodules.sampling": "ldm.models.diffusion.samplers.edm",
    "pytorch_lightning.callbacks.GPUStatsMonitor": "pytorch_lightning.callbacks.DeviceStatsMonitor",
}

FOLDERS = "take ldm.data.folder.ImageFolder, or ldm.data.captioned.CaptionedFolder for pictures with captions"

CAPTIONED = "take ldm.data.captioned.CaptionedFolder, which reads captions.jsonl, metadata.jsonl or text files"

# prefix -> what is missing, and what would do
NOT_CARRIED = {
    "ldm.data.imagenet": f"ImageNet's data sets are not here; {FOLDERS}",
    "ldm.data.lsun": f"LSUN's data sets are not here; {FOLDERS}",
    "ldm.data.openimages": f"OpenImages' data sets are not here; {FOLDERS}",
    "ldm.data.faceshq": f"the face data sets (CelebA-HQ, FFHQ) are not here; {FOLDERS}",
    "ldm.data.celebahq": f"the face data sets (CelebA-HQ, FFHQ) are not here; {FOLDERS}",
    "ldm.data.coco": f"COCO is not here; {FOLDERS}",
    "ldm.data.ade20k": f"ADE20K is not here; {FOLDERS}",
    "ldm.data.previews": f"the preview data set was never public; {FOLDERS}",
    "ldm.data.teyvat": f"this data set is not here; {FOLDERS}",
    "ldm.data.laion": f"reading LAION's tar shards is not here; {FOLDERS}",
    "ldm.data.base.Txt2ImgIterableBaseDataset": f"streaming data sets are not here; {FOLDERS}",
    "ldm.data.simple.TextOnly": "pictures for given prompts are made after a run: python txt2img.py --from-file; "
    "leave out the validation, or give it pictures",
    "ldm.data.simple.hf_dataset": f"data sets of the Hugging Face hub are read from folders: save the pictures with a "
    f"metadata.jsonl and {CAPTIONED}",
    "ldm.data.simple": f"{CAPTIONED}",
    "ldm.data.dummy": f"data sets of made-up pictures are not here; {FOLDERS}",
    "ldm.data.unsplash": f"Unsplash's pictures are not here; {FOLDERS}",
    "ldm.data.landscapes": f"the landscapes and their segmentations are not here; {FOLDERS}",
    "ldm.data.flowers": f"the landscapes and their segmentations are not here; {FOLDERS}",
    "ldm.data.sflckr": f"the landscapes and their segmentations are not here; {FOLDERS}",
    "ldm.data.nerf_like": f"views of objects are not here; {FOLDERS}",
    "ldm.data.inpainting": f"data sets with masks are not here; {FOLDERS}",
    "ldm.data.cifar10": f"CIFAR-10 is not here; {FOLDERS}",
    "edit_dataset": "pairs of pictures and instructions are not read here; python txt2img.py --edit edits by prompts",
    "ldm.models.diffusion.ddpm_edit": "InstructPix2Pix is not here; python txt2img.py --edit edits by prompts, and "
    "python scripts/img2img.py paints over a picture",
    "ldm.models.diffusion.ddpm.ImageConditionedLatentDiffusion": "models of new views are not here; "
    "python scripts/variations.py makes pictures like a picture",
    "strategies.ColossalAIStrategy": "Lightning has dropped ColossalAI; take DDPStrategy",
    "sgm": "this part of the code of Stable Diffusion XL is not here: leave it out; docs/models.md has what opens",
    "cldm": "ControlNet is not here; python scripts/depth2img.py keeps a picture's depth with the weights of its YAML "
    "configs/stable-diffusion/v2-midas-inference.yaml",
    "tutorial_dataset": "ControlNet is not here, nor its data sets",
    "ldm.modules.encoders.modules.BERTEmbedderWithLayout": "models of layouts are not here; --boxes puts words into "
    "boxes (docs/guidance.md)",
    "ldm.models.diffusion.ddpm.Layout2ImgDiffusion": "models of layouts are not here; txt2img.py --boxes puts words "
    "into boxes (docs/guidance.md)",
    "ldm.data.util.AddMiDaS": "the depth network's input is made by ldm.modules.midas.api",
    "taming.data": f"taming's data sets are not here; {FOLDERS}",
    "sgm.data": f"the data sets of generative-models are not here; {FOLDERS}",
    "sdata": f"reading tar shards is not here; {FOLDERS}",
    "ldm.data.mnist": f"MNIST is not here; {FOLDERS}",
    "ldm.data.dataset": f"reading tar shards is not here; {FOLDERS}",
    "sgm.modules.autoencoding": "take ldm.models.autoencoder.AutoencoderKL with "
                                "ldm.modules.losses.LPIPSWithDiscriminator",
    "taming.models": "taming's own models are not here; ldm.models.autoencoder has the VQ autoencoders",
    "torchvision.transforms": "torchvision is not used here; the data sets resize and crop by themselves",
    "ldm.models.diffusion.classifier": "classifier guidance is not here; classifier-free guidance is",
    "ldm.modules.diffusionmodules.openaimodel.EncoderUNetModel": "the classifier half of a UNet is not here",
    "ldm.modules.encoders.modules.FrozenT5Embedder": "the T5 encoder is not here",
    "ldm.modules.encoders.modules.FrozenCLIPT5Encoder": "the T5 encoder is not here",
    "ldm.modules.karlo": "Karlo's prior is not here; the unCLIP models take a picture instead",
    "pytorch_lightning.loggers.TestTubeLogger": "Lightning has dropped test-tube; take TensorBoardLogger or CSVLogger",
    "pytorch_lightning.strategies.ColossalAIStrategy": "Lightning has dropped ColossalAI; take DDPStrategy",
}


def current_name(target: str) -> str:
    """Where ``target`` is now; itself if it has not moved."""
    old = _longest_prefix(target, MOVED)
    if old is None:
        return target
    new = MOVED[old] + target[len(old) :]
    return current_name(new) if old == COPY else new


def why_missing(target: str) -> str | None:
    """What is missing and what would do instead, for a name that this project is known not to have."""
    prefix = _longest_prefix(target, NOT_CARRIED)
    return None if prefix is None else NOT_CARRIED[prefix]


def _longest_prefix(target: str, table: dict[str, str]) -> str | None:
    """The longest entry that is ``target`` or a package or module that it lies in."""
    found = [prefix for prefix in table if target == prefix or target.startswith(prefix + ".")]
    return max(found, key=len, default=None)

"""Weights that others have released: what each is for, where it can be had, and where it belongs here.

Places were right in November 2026. Sizes and SHA-256 are those that the hub or several independent projects state; what
nobody states is left open and not checked.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

HUB = "https://huggingface.co"
COMPVIS = "https://ommer-lab.com/files/latent-diffusion"
TORCH = "https://download.pytorch.org/models"
TOKENIZERS = Path("models/tokenizers")
MEASURES = Path("models/measures")
COMMAND = "python -m scripts.download"


@dataclass(frozen=True)
class File:
    """One file: of a hub repository (``repo``), or at an address (``path`` is then a URL; of a zip, one member).

    Attributes:
        size: bytes, where known; ``about`` says roughly how many otherwise.
        sha256: of the file, where known.
        member: what is taken out of a zip.
        name: what it is called here; as there, if not given.
    """

    path: str
    repo: str | None = None
    size: int | None = None
    sha256: str | None = None
    about: str = ""
    member: str | None = None
    name: str | None = None

    @property
    def url(self) -> str:
        return self.path if self.repo is None else f"{HUB}/{self.repo}/resolve/main/{self.path}"

    @property
    def page(self) -> str:
        """Where a person finds it."""
        return self.path if self.repo is None else f"{HUB}/{self.repo}"

    @property
    def saved_as(self) -> str:
        return self.name or PurePosixPath(self.member or self.path).name

    @property
    def amount(self) -> str:
        """Its size in words, empty where it is not known."""
        if self.size is None:
            return self.about
        return f"{self.size / 1e9:.2f} GB" if self.size >= 1e9 else f"{self.size / 1e6:.1f} MB"


@dataclass(frozen=True)
class Released:
    """Weights under one name.

    Attributes:
        name: what the command ``scripts.download`` calls them.
        purpose: what they are for.
        licence: as their owners state it.
        folder: where they belong, from the working directory.
        files: in that folder.
        config: the YAML that opens them; empty where none is needed, or there is none yet.
        tokenizer: the name of the tokenizer that they need; empty without one.
        remark: what else there is to know.
        hub_id: what YAMLs call a tokenizer or a network that is usually had by its hub id.
    """

    name: str
    purpose: str
    licence: str
    folder: Path
    files: tuple[File, ...]
    config: str = ""
    tokenizer: str = ""
    remark: str = ""
    hub_id: str = ""

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(self.folder / file.saved_as for file in self.files)


def _model(name: str, purpose: str, licence: str, folder: str, file: File, config: str = "", tokenizer: str = "",
           remark: str = "") -> Released:  # fmt: skip
    yaml = f"configs/{config}" if config else ""
    return Released(name, purpose, licence, Path("models/ldm") / folder, (file,), yaml, tokenizer, remark)


def _first_stage(name: str, purpose: str) -> Released:
    """An autoencoder of CompVis: a zip with ``model.ckpt``, whose YAML comes with this project."""
    folder = Path("models/first_stage_models") / name
    file = File(f"{COMPVIS}/{name}.zip", member="model.ckpt")
    return Released(name, purpose, "MIT", folder, (file,), f"{folder.as_posix()}/config.yaml")


def _measure(name: str, purpose: str, licence: str, file: File, remark: str = "") -> Released:
    return Released(name, purpose, licence, MEASURES, (file,), remark=remark)


RAIL, RAIL2 = "CreativeML OpenRAIL-M", "CreativeML OpenRAIL++-M"
CLIP, BERT = "clip-tokenizer", "bert-tokenizer"
SD1, SD1_GONE = "stable-diffusion-v1-5", "a mirror: the first publisher took its copy down in 2024"
SD2, SD2_GONE = "sd2-community", "a mirror: the first publisher took its copy down in 2025"

RELEASED: tuple[Released, ...] = (
    _model("ldm-text2img-large", "text to image, 256x256", "MIT", "text2img-large",
           File(f"{COMPVIS}/nitro/txt2img-f8-large/model.ckpt", about="5.7 GB"),
           "latent-diffusion/txt2img-1p4B-eval.yaml", BERT,
           "also txt2img-f8-large.ckpt of the hub's multimodalart/compvis-latent-diffusion-text2img-large"),
    _model("ldm-cin256-v2", "classes of ImageNet, 256x256", "MIT", "cin256-v2",
           File(f"{COMPVIS}/nitro/cin/model.ckpt"), "latent-diffusion/cin256-v2.yaml"),
    _model("ldm-cin256", "classes of ImageNet, 256x256", "MIT", "cin256",
           File(f"{COMPVIS}/cin.zip", member="model.ckpt"), "latent-diffusion/cin-ldm-vq-f8.yaml"),
    _model("ldm-celeba256", "faces, 256x256", "MIT", "celeba256",
           File(f"{COMPVIS}/celeba.zip", member="model.ckpt"), "latent-diffusion/celebahq-ldm-vq-4.yaml"),
    _model("ldm-ffhq256", "faces, 256x256", "MIT", "ffhq256",
           File(f"{COMPVIS}/ffhq.zip", member="model.ckpt"), "latent-diffusion/ffhq-ldm-vq-4.yaml"),
    _model("ldm-churches256", "churches, 256x256", "MIT", "lsun_churches256",
           File(f"{COMPVIS}/lsun_churches.zip", member="model.ckpt"), "latent-diffusion/lsun_churches-ldm-kl-8.yaml"),
    _model("ldm-bedrooms256", "bedrooms, 256x256", "MIT", "lsun_beds256",
           File(f"{COMPVIS}/lsun_bedrooms.zip", member="model.ckpt"), "latent-diffusion/lsun_bedrooms-ldm-vq-4.yaml"),
    _model("sd-v1-4", "text to image, 512x512; StyleID", RAIL, "stable-diffusion-v1-4",
           File("sd-v1-4.ckpt", "CompVis/stable-diffusion-v-1-4-original", 4265380512,
                "fe4efff1e174c627256e44ec2991ba279b3816e364b49f9be2abc0b3ff3f8556"),
           "stable-diffusion/v1-inference.yaml", CLIP),
    _model("sd-v1-5", "text to image, 512x512; StyleID", RAIL, "stable-diffusion-v1-5",
           File("v1-5-pruned-emaonly.safetensors", f"{SD1}/stable-diffusion-v1-5", 4265146304,
                "6ce0161689b3853acaa03779ec93eafe75a02f4ced659bee03f50797806fa2fa"),
           "stable-diffusion/v1-inference.yaml", CLIP, SD1_GONE),
    _model("sd-v1-5-inpainting", "filling a part of a picture, 512x512", RAIL, "stable-diffusion-v1-5-inpainting",
           File("sd-v1-5-inpainting.ckpt", f"{SD1}/stable-diffusion-inpainting", 4265437280,
                "c6bbc15e3224e6973459ba78de4998b80b50112b0ae5b5c67113d56b4e366b19"),
           "stable-diffusion/v1-inpainting-inference.yaml", CLIP, SD1_GONE),
    _model("sd-v2-base", "text to image, 512x512", RAIL2, "stable-diffusion-v2-base",
           File("512-base-ema.ckpt", f"{SD2}/stable-diffusion-2-base", 5214864007,
                "d635794c1fedfdfa261e065370bea59c651fc9bfa65dc6d67ad29e11869a1824"),
           "stable-diffusion/v2-inference.yaml", CLIP, SD2_GONE),
    _model("sd-v2", "text to image, 768x768 (predicts v)", RAIL2, "stable-diffusion-v2",
           File("768-v-ema.ckpt", f"{SD2}/stable-diffusion-2", None,
                "bfcaf0755797b0c30eb00a3787e8b423eb1f5decd8de76c4d824ac2dd27e139f", "5.2 GB"),
           "stable-diffusion/v2-inference-v.yaml", CLIP, SD2_GONE),
    _model("sd-v2-1-base", "text to image, 512x512", RAIL2, "stable-diffusion-v2-1-base",
           File("v2-1_512-ema-pruned.ckpt", f"{SD2}/stable-diffusion-2-1-base", 5214865159,
                "88ecb782561455673c4b78d05093494b9c539fc6bfc08f3a9a4a0dd7b0b10f36"),
           "stable-diffusion/v2-inference.yaml", CLIP, SD2_GONE),
    _model("sd-v2-1", "text to image, 768x768 (predicts v)", RAIL2, "stable-diffusion-v2-1",
           File("v2-1_768-ema-pruned.ckpt", f"{SD2}/stable-diffusion-2-1", 5214865159,
                "ad2a33c361c1f593c4a1fb32ea81afce2b5bb7d1983c6b94793a26a3b54b08a0"),
           "stable-diffusion/v2-inference-v.yaml", CLIP, SD2_GONE),
    _model("sd-v2-depth", "a picture anew, its depth kept", RAIL2, "stable-diffusion-v2-depth",
           File("512-depth-ema.ckpt", f"{SD2}/stable-diffusion-2-depth", None,
                "d0522d122e2713d38293c85e0b7b417e69234706fed2465ded3af0ac32d7e578"),
           "stable-diffusion/v2-midas-inference.yaml", CLIP, SD2_GONE),
    _model("sd-v2-inpainting", "filling a part of a picture, 512x512", RAIL2, "stable-diffusion-v2-inpainting",
           File("512-inpainting-ema.ckpt", f"{SD2}/stable-diffusion-2-inpainting", None,
                "2a208a7ded5d42dcb0c0ec908b23c631002091e06afe7e76d16cd11079f8d4e3", "5.2 GB"),
           "stable-diffusion/v2-inpainting-inference.yaml", CLIP, SD2_GONE),
    _model("sd-x4-upscaler", "a picture four times as large", RAIL2, "stable-diffusion-x4-upscaler",
           File("x4-upscaler-ema.safetensors", "stabilityai/stable-diffusion-x4-upscaler", 3531269371,
                "35c01d6160bdfe6644b0aee52ac2667da2f40a33a5d1ef12bbd011d059057bc6"),
           "stable-diffusion/x4-upscaling.yaml", CLIP),
    _model("sd-v2-1-unclip-h", "variations of a picture, 768x768", RAIL2, "stable-diffusion-v2-1-unclip-h",
           File("sd21-unclip-h.ckpt", f"{SD2}/stable-diffusion-2-1-unclip"),
           "stable-diffusion/v2-1-stable-unclip-h-inference.yaml", CLIP, SD2_GONE),
    _model("sd-v2-1-unclip-l", "variations of a picture, 768x768", RAIL2, "stable-diffusion-v2-1-unclip-l",
           File("sd21-unclip-l.ckpt", f"{SD2}/stable-diffusion-2-1-unclip"),
           "stable-diffusion/v2-1-stable-unclip-l-inference.yaml", CLIP, SD2_GONE),
    _model("sdxl-base", "text to image, 1024x1024", RAIL2, "stable-diffusion-xl-base",
           File("sd_xl_base_1.0.safetensors", "stabilityai/stable-diffusion-xl-base-1.0", 6938078334,
                "31e35c80fc4829d14f90153f4c74cd59c90b779f6afe05a74cd6120b893f7e5b"), "sdxl/sd_xl_base.yaml", CLIP),
    _model("sdxl-refiner", "the last steps of sdxl-base's pictures", RAIL2, "stable-diffusion-xl-refiner",
           File("sd_xl_refiner_1.0.safetensors", "stabilityai/stable-diffusion-xl-refiner-1.0", 6075981930,
                "7440042bbdc8a24813002c09b6b69b64dc90fded4472613437b7f55f9b7d9c5f"), "sdxl/sd_xl_refiner.yaml", CLIP),
    _model("sdxl-turbo", "text to image in one to four steps, 512x512", "Stability AI Community",
           "stable-diffusion-xl-turbo",
           File("sd_xl_turbo_1.0_fp16.safetensors", "stabilityai/sdxl-turbo", 6938081905,
                "e869ac7d6942cb327d68d5ed83a40447aadf20e0c3358d98b2cc9e270db0da26"), "sdxl/sd_xl_turbo.yaml", CLIP),
    _model("svd", "14 frames from a picture, 1024x576", "Stability AI Community", "stable-video-diffusion",
           File("svd.safetensors", "stabilityai/stable-video-diffusion-img2vid", about="9.6 GB"), "svd/svd.yaml",
           remark="its page may ask for consent first"),
    _model("svd-xt", "25 frames from a picture, 1024x576", "Stability AI Community", "stable-video-diffusion-xt",
           File("svd_xt.safetensors", "stabilityai/stable-video-diffusion-img2vid-xt", 9559625980,
                "b2652c23d64a1da5f14d55011b9b6dce55f2e72e395719f1cd1f8a079b00a451"), "svd/svd_xt.yaml",
           remark="its page may ask for consent first"),
    _first_stage("vq-f4", "autoencoder, factor 4, codebook"),
    _first_stage("vq-f4-noattn", "autoencoder, factor 4, codebook, no attention"),
    _first_stage("vq-f8", "autoencoder, factor 8, codebook of 16384"),
    _first_stage("vq-f8-n256", "autoencoder, factor 8, codebook of 256"),
    _first_stage("vq-f16", "autoencoder, factor 16, codebook"),
    _first_stage("kl-f4", "autoencoder, factor 4, Gaussian"),
    _first_stage("kl-f8", "autoencoder, factor 8, Gaussian"),
    _first_stage("kl-f16", "autoencoder, factor 16, Gaussian"),
    _first_stage("kl-f32", "autoencoder, factor 32, Gaussian"),
    Released("sd-vae-ft-mse", "Stable Diffusion 1's autoencoder, trained further", "MIT",
             Path("models/first_stage_models/sd-vae-ft-mse"),
             (File("vae-ft-mse-840000-ema-pruned.safetensors", "stabilityai/sd-vae-ft-mse-original", 334641190,
                   "735e4c3a447a3255760d7f86845f09f937809baa529c17370d83e4c3758f3c75"),),
             "models/first_stage_models/kl-f8/config.yaml"),
    Released("sdxl-vae", "Stable Diffusion XL's autoencoder alone (--vae)", "MIT",
             Path("models/first_stage_models/sdxl-vae"),
             (File("sdxl_vae.safetensors", "stabilityai/sdxl-vae", 334641164,
                   "63aeecb90ff7bc1c115395962d3e803571385b61938377bc7089b36e81e92e2e"),)),
    Released("sdxl-vae-fp16", "the same, made for half precision (--vae)", "MIT",
             Path("models/first_stage_models/sdxl-vae-fp16"),
             (File("sdxl.vae.safetensors", "madebyollin/sdxl-vae-fp16-fix", 334641162,
                   "235745af8d86bf4a4c1b5b4f529868b37019a10f7c0b2e79ad0abca3a22bc6e1"),)),
    Released(CLIP, "tokens of Stable Diffusion's prompts", "MIT", TOKENIZERS / "clip-vit-large-patch14",
             (File("vocab.json", "openai/clip-vit-large-patch14", about="1.0 MB"),
              File("merges.txt", "openai/clip-vit-large-patch14", about="0.5 MB")),
             hub_id="openai/clip-vit-large-patch14"),
    Released(BERT, "tokens of LDM's prompts", "Apache 2.0", TOKENIZERS / "bert-base-uncased",
             (File("vocab.txt", "google-bert/bert-base-uncased", about="0.2 MB"),), hub_id="bert-base-uncased"),
    _measure("fid-inception", "FID", "Apache 2.0",
             File("https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
                  "pt_inception-2015-12-05-6726825d.pth", size=95628359,
                  sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"),
             "as torch-fidelity's weights-inception-2015-12-05-6726825d.pth"),
    _measure("art-inception", "ArtFID", "as matthias-wright/art-fid has it",
             File("art_inception.pth", "matthias-wright/art_inception")),
    _measure("lpips-alex", "LPIPS (AlexNet)", "BSD 3-Clause",
             File(f"{TORCH}/alexnet-owt-7be5be79.pth", about="244 MB"),
             "the linear heads come with the packages lpips and torchmetrics"),
    _measure("lpips-vgg", "LPIPS (VGG 16)", "BSD 3-Clause",
             File(f"{TORCH}/vgg16-397923af.pth", about="553 MB",
                  sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0")),
    _measure("lpips-squeeze", "LPIPS (SqueezeNet)", "BSD 3-Clause",
             File(f"{TORCH}/squeezenet1_1-b8a52dc0.pth", about="5 MB")),
    _measure("cfsd-vgg19", "CFSD", "BSD 3-Clause",
             File(f"{TORCH}/vgg19-dcbb9e9d.pth", size=574673361,
                  sha256="dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44")),
    Released("clip-b32", "CLIP scores of pictures and prompts", "MIT", MEASURES / "clip-vit-base-patch32",
             tuple(File(name, "openai/clip-vit-base-patch32", about=about) for name, about in
                   (("config.json", ""), ("pytorch_model.bin", "605 MB"), ("vocab.json", ""), ("merges.txt", ""))),
             hub_id="openai/clip-vit-base-patch32"),
    Released("sam", "masks from boxes and points", "Apache 2.0", Path("models/sam-vit-base"),
             tuple(File(name, "facebook/sam-vit-base", about=about) for name, about in
                   (("config.json", ""), ("preprocessor_config.json", ""), ("model.safetensors", "375 MB"))),
             hub_id="facebook/sam-vit-base"),
)  # fmt: skip


def released(name: str) -> Released | None:
    """The entry of that name, if there is one."""
    return next((one for one in RELEASED if one.name == name), None)


def entry_of_file(path: str | os.PathLike[str]) -> Released | None:
    """The entry whose file a path is, by its place or, where no other is called so, by its name."""
    path = Path(path)
    for one in RELEASED:
        if path in one.paths:
            return one
    named = [one for one in RELEASED if path.name in (where.name for where in one.paths)]
    return named[0] if len(named) == 1 else None


def is_released(path: str | os.PathLike[str]) -> bool:
    """Whether a path looks like one of the files of others: by its name, or as a checkpoint of the old format."""
    return entry_of_file(path) is not None or Path(path).suffix == ".ckpt"


def how_to_get(path: str | os.PathLike[str]) -> str:
    """The end of a sentence about weights that are not there."""
    one = entry_of_file(path)
    if one is not None:
        return f"'{COMMAND} {one.name}' puts it where it belongs"
    return f"'{COMMAND}' lists released weights and gets them (docs/models.md)"


def how_to_get_id(hub_id: str) -> str:
    """The same for what is usually had by its hub id; empty where the table has no such thing."""
    one = next((one for one in RELEASED if hub_id in (one.hub_id, one.files[0].repo)), None)
    return f"'{COMMAND} {one.name}' gets it" if one is not None else ""


def local_copy(hub_id: str, names: Iterable[str]) -> Path | None:
    """The folder where ``scripts.download`` puts what has this hub id, if all the files are there."""
    for one in RELEASED:
        if one.hub_id == hub_id or one.files[0].repo == hub_id:
            return one.folder if all((one.folder / name).is_file() for name in names) else None
    return None


def markdown_table() -> str:
    """The table of docs/models.md."""
    lines = [
        "| name | for | file | size | licence | from | put into | YAML | tokenizer |",
        "|---|---|---|--:|---|---|---|---|---|",
    ]
    for one in RELEASED:
        files = ", ".join(f"`{file.saved_as}`" for file in one.files)
        sizes = " + ".join(filter(None, (file.amount for file in one.files))) or "not known here"
        source = one.files[0].repo or one.files[0].path
        place = f"[{source}]({one.files[0].page})" if one.files[0].repo else f"<{source}>"
        remark = f" ({one.remark})" if one.remark else ""
        cells = [f"`{one.name}`", one.purpose, files, sizes, one.licence, place + remark, f"`{one.folder.as_posix()}`",
                 f"`{one.config}`" if one.config else "", f"`{one.tokenizer}`" if one.tokenizer else ""]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"

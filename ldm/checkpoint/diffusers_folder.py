"""A diffusers model folder: its weights under this project's names, and the configuration that it describes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from ldm.checkpoint import diffusers_video as films
from ldm.checkpoint.diffusers_keys import (
    autoencoder_weights,
    clip_text_weights,
    open_clip_vision_weights,
    open_clip_weights,
    unet_weights,
)
from ldm.checkpoint.diffusers_xl import SECOND, text_prefixes, whole_config
from ldm.checkpoint.formats import open_file
from ldm.checkpoint.source import MappedTensors
from ldm.util import UserError, parse_json_object

_UNET = "ldm.modules.diffusionmodules.openaimodel.UNetModel"
_AUTOENCODER = "ldm.models.autoencoder.AutoencoderKL"
_CLIP = "ldm.modules.encoders.modules.FrozenCLIPEmbedder"
_OPEN_CLIP = "ldm.modules.encoders.modules.FrozenOpenCLIPEmbedder"
_LATENT_DIFFUSION = "ldm.models.diffusion.ddpm.LatentDiffusion"
_INPAINTING = "ldm.models.diffusion.ddpm.LatentInpaintDiffusion"

_CLASSES = (
    "UNet2DConditionModel", "AutoencoderKL", "CLIPTextModel", "CLIPTextModelWithProjection",
    films.UNET, films.AUTOENCODER, films.IMAGE_ENCODER,
)  # fmt: skip
_PARTS = {"unet": "model.diffusion_model.", "vae": "first_stage_model.", "text_encoder": "cond_stage_model."}
# parts of other models than Stable Diffusion 1 and 2, which would be wrong without them
_OTHERS = {
    "text_encoder_3": "a third text encoder (Stable Diffusion 3)",
    "transformer": "a transformer in place of the UNet",
    "prior": "a prior (unCLIP)",
    "image_noising_scheduler": "image embeddings with noise (unCLIP)",
    "low_res_scheduler": "a small picture with noise (up-scaling)",
    "depth_estimator": "a depth network",
}
_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
_VARIANTS = ("", ".fp16", ".bf16", ".non_ema")
_SCHEDULES = {"scaled_linear": "linear", "linear": "sqrt_linear", "squaredcos_cap_v2": "cosine"}
_PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
_TRANSFORMERS_PROJECTION = 512  # CLIPTextConfig's default, which a config.json may leave out


def is_diffusers_folder(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is a folder that diffusers' ``save_pretrained`` made, of a pipeline or of one of its parts."""
    return (Path(path) / "model_index.json").is_file() or (Path(path) / "config.json").is_file()


def is_film_folder(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is the folder of a pipeline that makes films; no damaged one is."""
    try:
        return films.makes_films(_index(Path(path)))
    except UserError:
        return False


def read_diffusers_folder(path: str | os.PathLike[str]) -> MappedTensors:
    """The weights of a pipeline (``unet/``, ``vae/``, ``text_encoder/``) or of one such folder, under our names.

    Raises:
        UserError: a part is missing, damaged or of a class that has no counterpart here.
    """
    with _understood(path):
        return _read_parts(Path(path))


def _read_parts(path: Path) -> MappedTensors:
    if not (path / "model_index.json").is_file():
        return _read_part(path)
    _refuse_others(path)
    whole = MappedTensors({}, [])
    for part, prefix in _prefixes(path).items():
        if not (path / part / "config.json").is_file():
            raise UserError(f"the diffusers folder '{path}' has no '{part}/config.json', which a whole model needs")
        tensors = _read_part(path / part)
        whole.update({prefix + key: value for key, value in tensors.items()})
        whole.sources += tensors.sources
    if films.makes_films(_index(path)):
        whole.update(films.weights_of_first_frame(whole))
    return whole


def _prefixes(path: Path) -> dict[str, str]:
    """A pipeline's folders of weights, and where those belong."""
    if films.makes_films(_index(path)):
        return films.PREFIXES
    if not _is_xl(path):
        return _PARTS
    return {part: _PARTS[part] for part in ("unet", "vae")} | text_prefixes(_index(path))


def _is_xl(path: Path) -> bool:
    """Whether a pipeline is one of Stable Diffusion XL: it has a second text encoder."""
    index = _index(path)
    return index.get(SECOND) not in (None, [None, None]) or (path / SECOND).is_dir()


def _refuse_others(path: Path) -> None:
    """Raises UserError for a pipeline with a part that has no counterpart here; its class is named."""
    index = _index(path)
    named = {part for part, value in index.items() if value not in (None, [None, None])}
    other = next((part for part in _OTHERS if part in named or (path / part).is_dir()), None)
    if other is not None:
        kind = index.get("_class_name", "pipeline")
        raise UserError(
            f"'{path}' is a {kind} with '{other}', {_OTHERS[other]}, which has no counterpart here; "
            "diffusers folders of Stable Diffusion 1, 2 (in-painting included) and XL, and of Stable Video Diffusion, "
            "can be opened"
        )


def _read_part(folder: Path) -> MappedTensors:
    config = _read_json(folder / "config.json")
    kind = _class_name(config, folder)
    made = MappedTensors({}, [])
    for file in _weight_files(folder):
        contents = open_file(file)
        made.sources.append(contents.source)
        made.update({key: value for key, value in contents.value.items() if isinstance(value, Tensor)})
    if kind in ("UNet2DConditionModel", films.UNET):
        translated = unet_weights(made, _blocks(config))
    elif kind == "AutoencoderKL":
        translated = autoencoder_weights(made)
    elif kind == films.AUTOENCODER:
        translated = films.first_stage_weights(made)
    elif kind == films.IMAGE_ENCODER:
        translated = open_clip_vision_weights(made)
    elif folder.name == SECOND or _is_open_clip(config):
        width = config.get("projection_dim", _TRANSFORMERS_PROJECTION)
        translated = open_clip_weights(made, width, whole=folder.name == SECOND)
    else:
        translated = clip_text_weights(made)
    return MappedTensors(translated, made.sources)


def _class_name(config: dict[str, Any], folder: Path) -> str:
    name = config.get("_class_name") or next(iter(config.get("architectures") or []), "unknown")
    if name not in _CLASSES:
        raise UserError(f"'{folder}' holds a {name}, which has no counterpart here")
    return str(name)


def _weight_files(folder: Path) -> Iterator[Path]:
    """One file, or the parts that an index lists; safetensors before pickles, full precision before half."""
    for variant in _VARIANTS:
        for kind in ("safetensors", "bin"):
            for stem in _STEMS:
                single, index = folder / f"{stem}{variant}.{kind}", folder / f"{stem}.{kind}.index{variant}.json"
                if single.is_file():
                    yield single
                    return
                if index.is_file():
                    names = sorted({Path(name).name for name in _read_json(index).get("weight_map", {}).values()})
                    yield from (folder / name for name in names)
                    return
    raise UserError(f"'{folder}' has a config.json and no weights (diffusion_pytorch_model.safetensors or the like)")


@contextlib.contextmanager
def _understood(path: str | os.PathLike[str]) -> Iterator[None]:
    """In the block, a value of another type than the format has is a sentence about the folder."""
    try:
        yield
    except (TypeError, LookupError, ValueError, AttributeError, ArithmeticError) as error:
        what = " ".join(str(error).split())[:120]
        raise UserError(
            f"a configuration (JSON) in the diffusers folder '{os.fspath(path)}' is damaged or of a kind that is not "
            f"known: {type(error).__name__}, {what}"
        ) from error


def _index(path: Path) -> dict[str, Any]:
    return _read_json(path / "model_index.json")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read '{path}': {error.strerror or error}") from error
    return parse_json_object(text, f"'{path}'")


def _blocks(config: dict[str, Any]) -> list[int]:
    count = config.get("layers_per_block", 2)
    return list(count) if isinstance(count, list) else [count] * len(config["block_out_channels"])


def _is_open_clip(config: dict[str, Any]) -> bool:
    """SD v2's tower is open_clip's, with the exact GELU; OpenAI's has the quick one."""
    return config.get("hidden_act") == "gelu"


def diffusers_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The ``{target, params}`` node for a diffusers folder, read from its ``config.json`` files.

    Raises:
        UserError: a configuration is missing, or describes something that is not built here.
    """
    with _understood(path):
        return _whole_config(Path(path))


def _whole_config(path: Path) -> dict[str, Any]:
    if not (path / "model_index.json").is_file():
        return _part_config(path)
    _refuse_others(path)
    unet, vae = _read_json(path / "unet" / "config.json"), _read_json(path / "vae" / "config.json")
    index = _index(path)
    makes_films, is_xl = films.makes_films(index), _is_xl(path)
    needed = films.PREFIXES if makes_films else ("unet", "vae") if is_xl else _PARTS
    parts = {part: _part_config(path / part) for part in needed}
    if makes_films or is_xl:
        given = {"unet": unet, "vae": vae, "scheduler": _read_json(path / "scheduler" / "scheduler_config.json")}
        return films.film_config(path, parts, given) if makes_films else whole_config(path, index, parts, given)
    channels = vae.get("latent_channels", 4)
    target, own = _kind(path, unet, channels)
    return {
        "target": target,
        "params": {
            **own,
            **_schedule(path),
            "first_stage_key": "jpg",
            "cond_stage_key": "txt",
            "image_size": unet.get("sample_size"),
            "channels": channels,
            "cond_stage_trainable": False,
            "scale_factor": vae.get("scaling_factor", 0.18215),
            "use_ema": False,
            "unet_config": parts["unet"],
            "first_stage_config": parts["vae"],
            "cond_stage_config": parts["text_encoder"],
        },
    }


def _kind(path: Path, unet: dict[str, Any], channels: int) -> tuple[str, dict[str, Any]]:
    """The class of the whole model, by what its UNet sees: a latent, or a mask and a masked picture's latent as well.

    Raises:
        UserError: it sees something else.
    """
    seen = unet.get("in_channels", 4)
    if unet.get("addition_embed_type") or unet.get("class_embed_type") or unet.get("num_class_embeds"):
        raise UserError(f"the UNet in '{path}' needs a vector besides the text, which no part of the folder makes here")
    if seen == channels:
        return _LATENT_DIFFUSION, {"conditioning_key": "crossattn"}
    if seen == 2 * channels + 1:
        return _INPAINTING, {"conditioning_key": "hybrid", "finetune_keys": None}
    raise UserError(
        f"the UNet in '{path}' sees {seen} channels: neither a latent of {channels} nor that with a mask and a picture"
    )


def _schedule(path: Path) -> dict[str, Any]:
    """Betas and parameterisation; the ends of the schedule are those of beta in both worlds."""
    file = path / "scheduler" / "scheduler_config.json"
    scheduler = _read_json(file)
    name, prediction = scheduler.get("beta_schedule", "linear"), scheduler.get("prediction_type", "epsilon")
    if name not in _SCHEDULES or prediction not in _PREDICTIONS:
        raise UserError(f"'{file}' asks for the schedule '{name}' with '{prediction}', which is not built here")
    return {
        "timesteps": scheduler.get("num_train_timesteps", 1000),
        "beta_schedule": _SCHEDULES[name],
        "linear_start": scheduler.get("beta_start", 0.0001),
        "linear_end": scheduler.get("beta_end", 0.02),
        "parameterization": _PREDICTIONS[prediction],
    }


def _part_config(folder: Path) -> dict[str, Any]:
    config = _read_json(folder / "config.json")
    kind = _class_name(config, folder)
    if kind == "UNet2DConditionModel":
        return {"target": _UNET, "params": _unet_params(config)}
    if kind == "AutoencoderKL":
        return {"target": _AUTOENCODER, "params": _autoencoder_params(config)}
    if kind == films.UNET:
        return films.film_network(_unet_params(config), config)
    if kind == films.AUTOENCODER:
        return films.film_autoencoder(_autoencoder_params(config)["ddconfig"])
    if kind == films.IMAGE_ENCODER:
        return films.image_encoder(config)
    return _text_config(config, folder)


def _unet_params(config: dict[str, Any]) -> dict[str, Any]:
    widths = config["block_out_channels"]
    blocks = _blocks(config)
    params = {
        "image_size": config.get("sample_size"),
        "in_channels": config.get("in_channels", 4),
        "out_channels": config.get("out_channels", 4),
        "model_channels": widths[0],
        "attention_resolutions": [2**i for i, name in enumerate(config["down_block_types"]) if "Attn" in name],
        "num_res_blocks": blocks if len(set(blocks)) > 1 else blocks[0],
        "channel_mult": [width // widths[0] for width in widths],
        "use_spatial_transformer": True,
        "transformer_depth": config.get("transformer_layers_per_block", 1),
        "context_dim": config["cross_attention_dim"],
        "use_linear_in_transformer": config.get("use_linear_projection", False),
        "legacy": False,
        **_heads(widths, config.get("num_attention_heads") or config.get("attention_head_dim", 8)),
    }
    if config.get("num_class_embeds"):
        params["num_classes"] = config["num_class_embeds"]
    if config.get("addition_embed_type") == "text_time":
        params |= {"num_classes": "sequential", "adm_in_channels": config["projection_class_embeddings_input_dim"]}
    return params


def _heads(widths: list[int], heads: int | list[int]) -> dict[str, int]:
    """One count for all levels, or one width for all; despite its name, ``attention_head_dim`` counts heads."""
    if isinstance(heads, int):
        return {"num_heads": heads}
    head_widths = {width // count for width, count in zip(widths, heads, strict=True)}
    if len(head_widths) > 1:
        raise UserError(f"the UNet has {heads} heads at widths {widths}: neither one count nor one width of head")
    return {"num_head_channels": head_widths.pop()}


def _autoencoder_params(config: dict[str, Any]) -> dict[str, Any]:
    widths, channels = config["block_out_channels"], config.get("latent_channels", 4)
    return {
        "embed_dim": channels,
        "lossconfig": {"target": "torch.nn.Identity"},
        "ddconfig": {
            "double_z": True,
            "z_channels": channels,
            "resolution": config.get("sample_size", 256),
            "in_channels": config.get("in_channels", 3),
            "out_ch": config.get("out_channels", 3),
            "ch": widths[0],
            "ch_mult": [width // widths[0] for width in widths],
            "num_res_blocks": config.get("layers_per_block", 2),
            "attn_resolutions": [],
            "dropout": 0.0,
        },
    }


def _text_config(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The encoder of the family, by its activation; ``version`` names the folder, which has sizes and vocabulary."""
    if _is_open_clip(config):
        return {"target": _OPEN_CLIP, "params": {"freeze": True, "layer": "penultimate", "version": str(folder)}}
    return {"target": _CLIP, "params": {"version": str(folder)}}

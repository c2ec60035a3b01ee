"""Which weight of a model a file's module means: a table made from the model's own names.

Underscores are part of real names, so that names with underscores for dots are looked up, never taken apart. Every
module of the UNet is there under its own path and under diffusers'; every layer of the text encoder under its own and
under transformers', for CLIP, OpenCLIP (whose q, k and v are rows of one weight) and LDM's BERT.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ldm.checkpoint.lora.file import TEXT, TEXT_2, UNET, Key

UNET_PREFIX, TEXT_PREFIX = "model.diffusion_model.", "cond_stage_model."
_EMBEDDER = re.compile(r"(conditioner\.embedders\.\d+\.).*token_embedding\.weight$")

_TOP = {
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
}
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_OPEN_CLIP = {"attn.out_proj": "self_attn.out_proj", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
_BERT = {"to_q": "self_attn.q_proj", "to_k": "self_attn.k_proj", "to_v": "self_attn.v_proj",
         "to_out": "self_attn.out_proj", "net.0.0": "fc1", "net.2": "fc2"}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """What a module of a file is in a model.

    Attributes:
        weight, bias: parameters by name.
        name: the path that files spell, with dots: diffusers' and transformers' where there is one.
        rows: the parameters' own rows, where they are fused with others'.
        network: the UNet, the text encoder, or the second one.
    """

    weight: str
    bias: str
    name: str = ""
    rows: tuple[int, int] | None = None
    network: str = UNET


def places(model: Any) -> dict[Key, Place]:
    """Every module of a model that a file can mean, under all its names.

    Args:
        model: a LatentDiffusion.
    """
    found: dict[Key, Place] = {}
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    for path, names in unet_names(_modules_below(shapes, UNET_PREFIX)).items():
        for name in names:
            found[_key(UNET, name)] = Place(f"{UNET_PREFIX}{path}.weight", f"{UNET_PREFIX}{path}.bias", names[-1])
    for prefix, network in text_prefixes(shapes).items():
        found |= _text_places(shapes, prefix, network)
    return found


def text_prefixes(parameters: Iterable[str]) -> dict[str, str]:
    """Where a model has its text encoders, one or two -> which of them it is."""
    matches = (_EMBEDDER.match(name) for name in parameters)
    inside = dict.fromkeys(match[1] for match in matches if match is not None)
    return dict(zip(inside or [TEXT_PREFIX], (TEXT, TEXT_2), strict=False))


def _text_places(shapes: Mapping[str, tuple[int, ...]], prefix: str, network: str) -> dict[Key, Place]:
    """The modules of one text encoder, under all their names."""
    found: dict[Key, Place] = {}
    for path in _modules_below(shapes, prefix):
        names = text_names(path)
        spelled = names[1] if len(names) == 3 else path
        place = Place(f"{prefix}{path}.weight", f"{prefix}{path}.bias", spelled, network=network)
        found |= {_key(network, name): place for name in names}
    for name, shape in shapes.items():
        match = re.search(r"resblocks\.(\d+)\.attn\.in_proj_weight$", name)
        if match is not None and name.startswith(prefix):
            rows = shape[0] // 3
            for i, part in enumerate("qkv"):
                names = _with_and_without(f"encoder.layers.{match[1]}.self_attn.{part}_proj")
                bias = name.removesuffix("weight") + "bias"
                place = Place(name, bias, names[0], (i * rows, (i + 1) * rows), network)
                found |= {_key(network, spelled): place for spelled in names}
    return found


def _key(network: str, name: str) -> Key:
    return Key(network, name.replace(".", "_"))


def _modules_below(parameters: Iterable[str], prefix: str) -> list[str]:
    """Paths of the modules with a ``weight``, in the model's order."""
    ends = (name.removeprefix(prefix) for name in parameters if name.startswith(prefix))
    return [end.removesuffix(".weight") for end in ends if end.endswith(".weight")]


def unet_names(paths: Sequence[str]) -> dict[str, list[str]]:
    """Paths of a ``UNetModel``'s modules -> the names that each goes by: its own, and diffusers'.

    What a block is, is read from what lies in it; any number of blocks a level will do.
    """
    block_names = {**_encoder(paths), **_decoder(paths), "middle_block.0": "mid_block.resnets.0",
                   "middle_block.1": "mid_block.attentions.0", "middle_block.2": "mid_block.resnets.1"}  # fmt: skip
    found: dict[str, list[str]] = {}
    for path in paths:
        found[path] = [path]
        block = ".".join(path.split(".")[: 2 if path.startswith("middle_block") else 3])
        if path in _TOP:
            found[path].append(_TOP[path])
        elif block in block_names:
            inside = path.removeprefix(block + ".")
            name = f"{block_names[block]}.{_RESNET.get(inside, inside)}"
            found[path].append(name.replace("downsamplers.0.op", "downsamplers.0.conv"))
    return found


def _encoder(paths: Sequence[str]) -> dict[str, str]:
    """``input_blocks.<i>.<k>`` -> diffusers' name of it."""
    found: dict[str, str] = {}
    level = index = 0
    for i in range(1, _count(paths, "input_blocks")):
        if _holds(paths, f"input_blocks.{i}.0.op"):
            found[f"input_blocks.{i}.0"] = f"down_blocks.{level}.downsamplers.0"
            level, index = level + 1, 0
            continue
        found[f"input_blocks.{i}.0"] = f"down_blocks.{level}.resnets.{index}"
        found[f"input_blocks.{i}.1"] = f"down_blocks.{level}.attentions.{index}"
        index += 1
    return found


def _decoder(paths: Sequence[str]) -> dict[str, str]:
    """``output_blocks.<i>.<k>`` -> diffusers' name of it."""
    found: dict[str, str] = {}
    level = index = 0
    for i in range(_count(paths, "output_blocks")):
        found[f"output_blocks.{i}.0"] = f"up_blocks.{level}.resnets.{index}"
        up = next((k for k in (1, 2) if _holds(paths, f"output_blocks.{i}.{k}.conv")), None)
        if up != 1:
            found[f"output_blocks.{i}.1"] = f"up_blocks.{level}.attentions.{index}"
        index += 1
        if up is not None:
            found[f"output_blocks.{i}.{up}"] = f"up_blocks.{level}.upsamplers.0"
            level, index = level + 1, 0
    return found


def _count(paths: Sequence[str], part: str) -> int:
    return 1 + max((int(path.split(".")[1]) for path in paths if path.startswith(part + ".")), default=-1)


def _holds(paths: Sequence[str], path: str) -> bool:
    return path in paths


def text_names(path: str) -> list[str]:
    """The names that a module of a text encoder goes by; fused rows are not among them."""
    match = re.search(r"(?:^|\.)((?:text_model\.)?encoder\.layers\.\d+\..+)$", path)
    if match is not None:
        return [path, *_with_and_without(match[1].removeprefix("text_model."))]
    match = re.search(r"resblocks\.(\d+)\.(.+)$", path)
    if match is not None and match[2] in _OPEN_CLIP:
        return [path, *_with_and_without(f"encoder.layers.{match[1]}.{_OPEN_CLIP[match[2]]}")]
    match = re.search(r"attn_layers\.layers\.(\d+)\.1\.(.+)$", path)
    if match is not None and match[2] in _BERT:
        return [path, f"model.layers.{int(match[1]) // 2}.{_BERT[match[2]]}"]
    return [path]


def _with_and_without(path: str) -> list[str]:
    """transformers 5 has no level ``text_model`` in the names of CLIP's text model."""
    return [f"text_model.{path}", path]


# ---- files without names ---------------------------------------------------------------------------------------------

_BLOCK = re.compile(r"(input|output|middle)_blocks?\..*?transformer_blocks\.\d+\.(.+)$")
_PAIRS = ("to_q", "to_k", "to_v", "to_out.0")
_ORDER = (*(f"attn1.{name}" for name in _PAIRS), "ff.net.0.proj", *(f"attn2.{name}" for name in _PAIRS))
_TEXT_ORDER = ("k_proj", "v_proj", "q_proj", "out_proj")


def numbered_places(table: Mapping[Key, Place], network: str) -> list[Place]:
    """The weights that cloneofsimo's numbers mean, in their order: the module order of early diffusers.

    That is the encoder, the decoder, the middle; in a block q, k, v, out of ``attn1``, the gate's projection, then
    ``attn2``. In the text encoder k, v, q, out of each layer.
    """
    if network == TEXT:
        found = (re.match(r"encoder_layers_(\d+)_self_attn_", key.module) for key in table)
        layers = sorted({int(match[1]) for match in found if match is not None})
        keys = [Key(TEXT, f"encoder_layers_{i}_self_attn_{name}") for i in layers for name in _TEXT_ORDER]
        return [table[key] for key in keys if key in table]
    weights = dict.fromkeys(place.weight for key, place in table.items() if key.network == UNET)
    parts: dict[str, dict[str, list[str]]] = {"input": {}, "output": {}, "middle": {}}
    for weight in weights:
        match = _BLOCK.match(weight.removeprefix(UNET_PREFIX).removesuffix(".weight"))
        if match is not None and match[2] in _ORDER:
            block = weight.removesuffix(f"{match[2]}.weight")
            parts[match[1]].setdefault(block, []).append(match[2])
    ordered = [
        f"{block}{name}" for part in parts.values() for block, names in part.items() for name in _ORDER if name in names
    ]
    by_weight = {place.weight: place for place in table.values()}
    return [by_weight[f"{path}.weight"] for path in ordered]


"""The names of diffusers' and transformers' weights, translated into those of this project."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Tensors = dict[str, Tensor]

_UNET_TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "class_embedding": "label_emb",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
# halves of the blocks of a network of films; a residual block's halves have the names above
_UNET_HALVES = {
    "spatial_res_block.": "",
    "temporal_res_block.": "time_stack.",
    "temporal_transformer_blocks.": "time_stack.",
    "time_pos_embed.linear_1.": "time_pos_embed.0.",
    "time_pos_embed.linear_2.": "time_pos_embed.2.",
}
_UNET_BLOCK = re.compile(
    r"(down|mid|up)_blocks?(?:\.(\d+))?\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)"
)
_MIDDLE = {("resnets", 0): 0, ("attentions", 0): 1, ("resnets", 1): 2}

_VAE_RULES: tuple[tuple[str, str], ...] = (
    (r"mid_block\.resnets\.0\.", "mid.block_1."),
    (r"mid_block\.resnets\.1\.", "mid.block_2."),
    (r"mid_block\.attentions\.0\.", "mid.attn_1."),
    (r"down_blocks\.(\d+)\.resnets\.(\d+)\.", r"down.\1.block.\2."),
    (r"down_blocks\.(\d+)\.attentions\.(\d+)\.", r"down.\1.attn.\2."),
    (r"down_blocks\.(\d+)\.downsamplers\.0\.", r"down.\1.downsample."),
    (r"up_blocks\.(\d+)\.resnets\.(\d+)\.", r"up.\1.block.\2."),
    (r"up_blocks\.(\d+)\.attentions\.(\d+)\.", r"up.\1.attn.\2."),
    (r"up_blocks\.(\d+)\.upsamplers\.0\.", r"up.\1.upsample."),
    (r"conv_norm_out\.", "norm_out."),
    (r"conv_shortcut\.", "nin_shortcut."),
    (r"(attn[._][\d]+)\.group_norm\.", r"\1.norm."),
    (r"(attn[._][\d]+)\.(?:to_q|query)\.", r"\1.q."),
    (r"(attn[._][\d]+)\.(?:to_k|key)\.", r"\1.k."),
    (r"(attn[._][\d]+)\.(?:to_v|value)\.", r"\1.v."),
    (r"(attn[._][\d]+)\.(?:to_out\.0|proj_attn)\.", r"\1.proj_out."),
    (r"spatial_res_block\.", ""),
    *((rf"temporal_res_block\.{name}\.", f"time_stack.{ours}.") for name, ours in _UNET_RESNET.items()),
    (r"time_mixer\.", ""),
    (r"time_conv_out\.", "conv_out.time_mix_conv."),
)
_OPEN_CLIP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_OPEN_CLIP_VISION = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "pre_layrnorm.weight": "ln_pre.weight",
    "pre_layrnorm.bias": "ln_pre.bias",
    "post_layernorm.weight": "ln_post.weight",
    "post_layernorm.bias": "ln_post.bias",
}
_OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def unet_weights(tensors: Mapping[str, Tensor], blocks: Sequence[int]) -> Tensors:
    """``UNet2DConditionModel`` -> ``UNetModel``, ``UNetSpatioTemporalConditionModel`` -> ``VideoUNet``.

    Args:
        blocks: number of ResBlocks per level of the encoder (``layers_per_block``); the decoder has one more each.
    """
    return {_unet_key(key, blocks, tensors): value for key, value in tensors.items()}


def _unet_key(key: str, blocks: Sequence[int], tensors: Mapping[str, Tensor]) -> str:
    match = _UNET_BLOCK.fullmatch(key)
    if match is None:
        stem, _, leaf = key.rpartition(".")
        return f"{_UNET_TOP.get(stem, stem)}.{leaf}"
    part, level, kind, index, rest = match[1], int(match[2] or 0), match[3], int(match[4]), match[5]
    rest = _unet_name_within(kind, rest)
    if part == "mid":
        return f"middle_block.{_MIDDLE[kind, index]}.{rest}"
    if part == "down":
        first = 1 + sum(count + 1 for count in blocks[:level])
        if kind == "downsamplers":
            return f"input_blocks.{first + blocks[level]}.0.{rest.replace('conv.', 'op.')}"
        return f"input_blocks.{first + index}.{int(kind == 'attentions')}.{rest}"
    rising = list(reversed(blocks))
    first = sum(count + 1 for count in rising[:level])
    if kind == "upsamplers":
        attended = any(other.startswith(f"up_blocks.{level}.attentions.") for other in tensors)
        return f"output_blocks.{first + rising[level]}.{1 + attended}.{rest}"
    return f"output_blocks.{first + index}.{int(kind == 'attentions')}.{rest}"


def _unet_name_within(kind: str, rest: str) -> str:
    """The part of a key behind that of its block, which is of a ``kind``."""
    half = next((name for name in _UNET_HALVES if rest.startswith(name)), "")
    name = rest.removeprefix(half)
    if kind == "resnets":
        stem, _, leaf = name.rpartition(".")
        name = f"{_UNET_RESNET.get(stem, stem)}.{leaf}"
    return _UNET_HALVES.get(half, "") + name


def autoencoder_weights(tensors: Mapping[str, Tensor]) -> Tensors:
    """``AutoencoderKL`` or ``VQModel`` of diffusers -> the class of that name here.

    Those of ``AutoencoderKLTemporalDecoder`` become those of an ``Encoder``, a ``VideoDecoder`` and a ``quant_conv``.
    Its linear attention projections are 1x1 convolutions here, and levels of the decoder count from the finest.
    """
    levels = {int(m[1]) for key in tensors if (m := re.match(r"decoder\.up_blocks\.(\d+)\.", key))}
    top = max(levels, default=0)
    made = {}
    for key, value in tensors.items():
        name = re.sub(r"(?<=up_blocks\.)\d+", lambda m: str(top - int(m[0])), key)
        for pattern, replacement in _VAE_RULES:
            name = re.sub(pattern, replacement, name)
        if re.search(r"attn[._]\d+\.(q|k|v|proj_out)\.weight$", name) and value.ndim == 2:
            value = value[:, :, None, None]
        made[name] = value
    return made


def clip_text_weights(tensors: Mapping[str, Tensor]) -> Tensors:
    """``CLIPTextModel`` -> the encoder's ``transformer``, whose level ``text_model.`` newer files leave out."""
    named = {key if key.startswith("text_model.") else f"text_model.{key}": value for key, value in tensors.items()}
    return {f"transformer.{key}": value for key, value in named.items() if not key.endswith("text_projection.weight")}


def open_clip_weights(tensors: Mapping[str, Tensor], projection_dim: int, whole: bool = False) -> Tensors:
    """``CLIPTextModel`` of SD v2, or SDXL's ``CLIPTextModelWithProjection``, -> open_clip's text tower.

    diffusers drops what SD v2 never runs: the last block, the projection and the temperature. They are put back, the
    block as a second name for the last one that is there, because this project's state dict lists them.

    Args:
        projection_dim: width of the projection, where the weights have none.
        whole: nothing was dropped, as in SDXL's second text encoder, which runs every block.
    """
    tensors = {key.removeprefix("text_model."): value for key, value in tensors.items()}
    made = _open_clip_tower(tensors, _OPEN_CLIP)
    made |= {} if whole else _last_block_again(made)
    width, dtype = made["token_embedding.weight"].shape[1], made["token_embedding.weight"].dtype
    projection = tensors.get("text_projection.weight")
    made["text_projection"] = torch.eye(width, projection_dim, dtype=dtype) if projection is None else projection.T
    made["logit_scale"] = torch.tensor(1.0, dtype=dtype)
    return {f"model.{key}": value for key, value in made.items()}


def open_clip_vision_weights(tensors: Mapping[str, Tensor]) -> Tensors:
    """``CLIPVisionModelWithProjection`` -> open_clip's image tower, inside what holds it."""
    tensors = {key.removeprefix("vision_model."): value for key, value in tensors.items()}
    made = {**_open_clip_tower(tensors, _OPEN_CLIP_VISION), "proj": tensors["visual_projection.weight"].T}
    return {f"model.visual.{key}": value for key, value in made.items()}


def _open_clip_tower(tensors: Mapping[str, Tensor], outside: Mapping[str, str]) -> Tensors:
    """transformers' names of a tower as open_clip's; ``outside`` has those of what is not in its blocks."""
    made: Tensors = {}
    for key, value in tensors.items():
        layer = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", key)
        if layer is None:
            if key in outside:
                made[outside[key]] = value
        elif layer[2] in _OPEN_CLIP_LAYER:
            made[f"transformer.resblocks.{layer[1]}.{_OPEN_CLIP_LAYER[layer[2]]}.{layer[3]}"] = value
        elif layer[2] == "self_attn.q_proj":
            parts = [tensors[key.replace("q_proj", f"{name}_proj")] for name in "qkv"]
            made[f"transformer.resblocks.{layer[1]}.attn.in_proj_{layer[3]}"] = torch.cat(parts)
    return made


def _last_block_again(made: Tensors) -> Tensors:
    """The last block that is there under the name of the one that was dropped behind it."""
    count = 1 + max(int(m[1]) for key in made if (m := re.match(r"transformer\.resblocks\.(\d+)\.", key)))
    last, unused = f"transformer.resblocks.{count - 1}.", f"transformer.resblocks.{count}."
    return {key.replace(last, unused): value for key, value in made.items() if key.startswith(last)}

"""The weights of the hybrid dense prediction transformer (DPT): names in released files, and in transformers.

Released depth models carry the names of the original code, with one matrix for the queries, keys and values of a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

import torch
from torch import Tensor

STAGES = (3, 4, 9)  # blocks in each stage of the ResNet below the transformer
LAYERS = 12  # of the transformer
AFFINE = ("weight", "bias")


@cache
def name_table() -> dict[str, tuple[str, ...]]:
    """Released name -> the name in transformers, or the three that are joined in it along the first dimension."""
    return dict([*_backbone(), *_transformer(), *_neck_and_head()])


def from_transformers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers' weights under released names."""
    return {
        name: weights[parts[0]] if len(parts) == 1 else torch.cat([weights[part] for part in parts])
        for name, parts in name_table().items()
    }


def to_transformers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under released names, some of them or all, as transformers wants them; other names stay as they are."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        parts = name_table().get(name, (name,))
        renamed.update(zip(parts, tensor.chunk(len(parts)) if len(parts) > 1 else (tensor,), strict=True))
    return renamed


def _affine(released: str, new: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield from ((f"{released}.{leaf}", (f"{new}.{leaf}",)) for leaf in AFFINE)


def _convolution_and_norm(
    released: str, new: str, conv: str, norm: str, new_conv: str | None = None
) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield f"{released}.{conv}.weight", (f"{new}.{new_conv or conv}.weight",)
    yield from _affine(f"{released}.{norm}", f"{new}.{norm}")


def _backbone() -> Iterator[tuple[str, tuple[str, ...]]]:
    old, new = "pretrained.model.patch_embed.backbone", "dpt.embeddings.backbone.bit"
    yield from _convolution_and_norm(f"{old}.stem", f"{new}.embedder", "conv", "norm", "convolution")
    for stage, blocks in enumerate(STAGES):
        for block in range(blocks):
            here, there = f"{old}.stages.{stage}.blocks.{block}", f"{new}.encoder.stages.{stage}.layers.{block}"
            for i in (1, 2, 3):
                yield from _convolution_and_norm(here, there, f"conv{i}", f"norm{i}")
            if block == 0:
                yield from _convolution_and_norm(f"{here}.downsample", f"{there}.downsample", "conv", "norm")


def _transformer() -> Iterator[tuple[str, tuple[str, ...]]]:
    yield "pretrained.model.cls_token", ("dpt.embeddings.cls_token",)
    yield "pretrained.model.pos_embed", ("dpt.embeddings.position_embeddings",)
    yield from _affine("pretrained.model.patch_embed.proj", "dpt.embeddings.projection")
    yield from _affine("pretrained.model.norm", "dpt.layernorm")
    for layer in range(LAYERS):
        here, there = f"pretrained.model.blocks.{layer}", f"dpt.encoder.layer.{layer}"
        for leaf in AFFINE:
            qkv = tuple(f"{there}.attention.attention.{part}.{leaf}" for part in ("query", "key", "value"))
            yield f"{here}.attn.qkv.{leaf}", qkv
        yield from _affine(f"{here}.attn.proj", f"{there}.attention.output.dense")
        yield from _affine(f"{here}.mlp.fc1", f"{there}.intermediate.dense")
        yield from _affine(f"{here}.mlp.fc2", f"{there}.output.dense")
        yield from _affine(f"{here}.norm1", f"{there}.layernorm_before")
        yield from _affine(f"{here}.norm2", f"{there}.layernorm_after")


def _neck_and_head() -> Iterator[tuple[str, tuple[str, ...]]]:
    reassemble = "neck.reassemble_stage"
    for i in (3, 4):  # the first two levels come from the ResNet as they are
        here = f"pretrained.act_postprocess{i}"
        yield from _affine(f"{here}.0.project.0", f"{reassemble}.readout_projects.{i - 1}.0")
        yield from _affine(f"{here}.3", f"{reassemble}.layers.{i - 1}.projection")
    yield from _affine("pretrained.act_postprocess4.4", f"{reassemble}.layers.3.resize")
    for i in (1, 2, 3, 4):
        yield f"scratch.layer{i}_rn.weight", (f"neck.convs.{i - 1}.weight",)
        here, there = f"scratch.refinenet{i}", f"neck.fusion_stage.layers.{4 - i}"  # the coarsest is fused first
        yield from _affine(f"{here}.out_conv", f"{there}.projection")
        for unit in (1, 2):
            for conv in (1, 2):
                old, new = f"resConfUnit{unit}.conv{conv}", f"residual_layer{unit}.convolution{conv}"
                yield from _affine(f"{here}.{old}", f"{there}.{new}")
    for i in (0, 2, 4):
        yield from _affine(f"scratch.output_conv.{i}", f"head.head.{i}")

"""Weights of small networks in a file: matrices and kernels as whole numbers from -127 to 127, a scale for 64 of them.

That is little more than half of bfloat16's size. Scales are the largest weight's over 127, block by block, as in the
8-bit states of Dettmers et al. 2022 ("8-bit Optimizers via Block-wise Quantization"): rows have outliers, and with
one scale for a whole row a corrector was three times as far off.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

SCALE = ".scale"  # what the name of a tensor's scales ends with
LARGEST = 127
BLOCK = 64  # weights of a row that share a scale


def in_bytes(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with its matrices and kernels in bytes and their scales, [rows, blocks]; the rest as it is."""
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        if value.dim() < 2 or not value.is_floating_point():
            found[name] = value
            continue
        blocks = _blocks(value.float())
        scale = (blocks.abs().amax(2) / LARGEST).clamp_min(1e-30).bfloat16()
        whole = (blocks / scale.float()[..., None]).round().clamp(-LARGEST, LARGEST)
        found[name] = _unblocked(whole.to(torch.int8), value.shape)
        found[name + SCALE] = scale
    return found


def from_bytes(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict that ``in_bytes`` was given, in float32 where it was in bytes; another's is as it is."""
    scales = {
        name + SCALE: weights[name + SCALE] for name, value in weights.items() if _is_scaled(name, value, weights)
    }
    found = {name: value for name, value in weights.items() if name not in scales}
    for name in (scale.removesuffix(SCALE) for scale in scales):
        blocks = _blocks(found[name]) * scales[name + SCALE].float()[..., None]
        found[name] = _unblocked(blocks, found[name].shape)
    return found


def _is_scaled(name: str, value: Tensor, weights: Mapping[str, Tensor]) -> bool:
    scale = weights.get(name + SCALE)
    if scale is None or value.dtype != torch.int8 or value.dim() < 2:
        return False
    return scale.is_floating_point() and scale.shape == (len(value), math.ceil(value[0].numel() / BLOCK))


def _blocks(value: Tensor) -> Tensor:
    rows = value.flatten(1)
    return F.pad(rows, (0, -rows.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK))


def _unblocked(blocks: Tensor, shape: torch.Size) -> Tensor:
    return blocks.flatten(1)[:, : shape[1:].numel()].reshape(shape).contiguous()

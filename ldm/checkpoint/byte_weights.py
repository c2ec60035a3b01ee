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
        rows = value.float().flatten(1)
        blocks = F.pad(rows, (0, -rows.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK))
        scale = (blocks.abs().amax(2) / LARGEST).clamp_min(1e-30).bfloat16()
        whole = (rows / _spread(scale, rows.shape[1])).round().clamp(-LARGEST, LARGEST)
        found[name] = whole.to(torch.int8).reshape(value.shape)
        found[name + SCALE] = scale
    return found


def from_bytes(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict that ``in_bytes`` was given, in float32 where it was in bytes; another's is as it is."""
    stored = {name: value for name, value in weights.items() if _is_stored(value, weights.get(name + SCALE))}
    found = {name: value for name, value in weights.items() if name.removesuffix(SCALE) not in stored or name in stored}
    for name, value in stored.items():
        rows = value.flatten(1)
        found[name] = (rows * _spread(weights[name + SCALE], rows.shape[1])).reshape(value.shape)
    return found


def _is_stored(value: Tensor, scale: Tensor | None) -> bool:
    if scale is None or value.dtype != torch.int8 or value.dim() < 2 or not value.numel():
        return False
    return scale.dtype == torch.bfloat16 and scale.shape == (len(value), math.ceil(value[0].numel() / BLOCK))


def _spread(scale: Tensor, columns: int) -> Tensor:
    """Scales of blocks as those of a row's weights."""
    return scale.float()[:, torch.arange(columns, device=scale.device) // BLOCK]

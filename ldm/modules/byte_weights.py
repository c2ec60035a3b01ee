"""Weights of small networks in a file: a matrix as whole numbers from -127 to 127, and a scale for 64 of them.

That is little more than half of bfloat16's size. Scales are the largest weight's over 127, block by block, as in the
8-bit states of Dettmers et al. 2022 ("8-bit Optimizers via Block-wise Quantization"): rows have outliers, and with
one scale for a whole row a corrector was three times as far off.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

SCALE = ".scale"  # what the name of a matrix's scales ends with
LARGEST = 127
BLOCK = 64  # weights of a row that share a scale


def in_bytes(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with its matrices in bytes, [rows, columns], and their scales, [rows, blocks]; the rest as it is."""
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        if value.dim() != 2 or not value.is_floating_point():
            found[name] = value
            continue
        blocks = F.pad(value.float(), (0, -value.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK))
        scale = (blocks.abs().amax(2) / LARGEST).clamp_min(1e-30).bfloat16()
        whole = (blocks / scale.float()[..., None]).round().clamp(-LARGEST, LARGEST)
        found[name] = whole.to(torch.int8).flatten(1)[:, : value.shape[1]].contiguous()
        found[name + SCALE] = scale
    return found


def from_bytes(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict that ``in_bytes`` was given, in float32 where it was in bytes."""
    scales = {name: value for name, value in weights.items() if name.endswith(SCALE)}
    found = {name: value for name, value in weights.items() if name not in scales}
    for name, scale in scales.items():
        matrix = name.removesuffix(SCALE)
        found[matrix] = found[matrix] * scale.float().repeat_interleave(BLOCK, 1)[:, : found[matrix].shape[1]]
    return found

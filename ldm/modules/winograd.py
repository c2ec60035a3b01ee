"""3x3 convolutions with two thirds of the multiplications (Winograd 1980; Lavin & Gray 2016, F(2, 3)), on a CPU.

Only along the height: with rows d0..d3 of the input and the kernel's rows g0..g2, each row a 1x3 convolution,

    y0 = m0 + m1 + m2,    m0 = (d0 - d2) * g0,    m1 = (d1 + d2) * (g0 + g1 + g2) / 2,
    y1 = m1 - m2 - m3,    m3 = (d1 - d3) * g2,    m2 = (d2 - d1) * (g0 - g1 + g2) / 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

mkldnn = torch.ops.mkldnn

SIZES = ([0, 1], [1, 1], [1, 1], 1)  # padding, stride, dilation, groups of the 1x3 convolutions
BAND = 2**21  # elements of the input in one band of rows: what is computed on the way stays in the cache


def winograd_weights(weight: Tensor, shape: torch.Size) -> tuple[Tensor, ...]:
    """Packed kernels for m0, m1, m2 and -m3 of a convolution [C', C, 3, 3] whose input has this ``shape``."""
    g0, g1, g2 = weight.float().unbind(2)
    kernels = (g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, -g2)
    size = [shape[0], shape[1], shape[2] // 2, shape[3]]
    rows = (kernel.to(weight.dtype)[:, :, None].contiguous() for kernel in kernels)
    return tuple(mkldnn._reorder_convolution_weight(row, *SIZES, size) for row in rows)


def winograd_convolution(x: Tensor, kernels: tuple[Tensor, ...], bias: Tensor | None) -> Tensor:
    """[B, C, H, W], stored channels-last, H even -> [B, C', H, W], padded with zeros; kernels of winograd_weights."""
    batch, channels, height, width = x.shape
    out = x.new_empty(batch, height, width, kernels[0].shape[0]).permute(0, 3, 1, 2)
    step = max(8, BAND // (batch * channels * width)) // 2 * 2
    for top in range(0, height, step):
        bottom = min(top + step, height)
        above = x[:, :, top - 1 : top] if top else None
        below = x[:, :, bottom : bottom + 1] if bottom < height else None
        even, odd = _two_rows(x[:, :, top:bottom], above, below, kernels, bias)
        out[:, :, top:bottom:2], out[:, :, top + 1 : bottom : 2] = even, odd
    return out


def _two_rows(
    x: Tensor, above: Tensor | None, below: Tensor | None, kernels: tuple[Tensor, ...], bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The even and the odd rows of the result for a band of rows and its neighbours, None at the picture's edge."""
    k0, k1, k2, k3 = kernels
    d1, d2 = x[:, :, 0::2], x[:, :, 1::2]
    mixed = torch.empty_like(d1, memory_format=torch.channels_last)

    m1 = _row_convolution(torch.add(d1, d2, out=mixed), k1, bias)
    m2 = _row_convolution(torch.sub(d2, d1, out=mixed), k2, None)
    even, odd = m1 + m2, m1.sub_(m2)

    torch.sub(d2[:, :, :-1], d2[:, :, 1:], out=mixed[:, :, 1:])
    mixed[:, :, :1] = -d2[:, :, :1] if above is None else above - d2[:, :, :1]
    _add_row_convolution(even, mixed, k0)

    torch.sub(d1[:, :, :-1], d1[:, :, 1:], out=mixed[:, :, :-1])
    mixed[:, :, -1:] = d1[:, :, -1:] if below is None else d1[:, :, -1:] - below
    _add_row_convolution(odd, mixed, k3)
    return even, odd


def _row_convolution(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    return mkldnn._convolution_pointwise(x, kernel, bias, *SIZES, "none", [], "")


def _add_row_convolution(total: Tensor, x: Tensor, kernel: Tensor) -> None:
    """total += x * kernel, added before the result is rounded."""
    mkldnn._convolution_pointwise_.binary(total, x, kernel, None, *SIZES, "add", 1.0, None, [], None)

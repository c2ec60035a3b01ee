"""Gradients through layers with packed weights: to the input alone, keeping neither that nor the weight's plain values.

PyTorch keeps the plain values, which would be in memory beside the packed ones until the backward pass. Here they are
made again when it comes to their layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ldm.modules.cpu.packed_weight import PackedWeight, values_of

Values = Callable[[], Tensor]


def conv(x: Tensor, weight: Tensor, bias: Tensor | None, sizes: Sequence[Any]) -> Tensor:
    """A convolution by a weight that may be packed; ``sizes`` are stride, padding, dilation and groups.

    Shapes: x [B, C, H, W] -> [B, C', H', W'], or with T in front of H.
    """
    if not _takes(x, weight, bias):
        return _plain(x, values_of(weight), bias, *sizes)
    return _Conv.apply(x, _values(weight), bias, *sizes)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A linear layer by a weight that may be packed; x [..., in] -> [..., out]."""
    return _Linear.apply(x, _values(weight), bias) if _takes(x, weight, bias) else F.linear(x, values_of(weight), bias)


def _plain(x: Tensor, weight: Tensor, bias: Tensor | None, *sizes: Any) -> Tensor:
    return (F.conv2d if weight.dim() == 4 else F.conv3d)(x, weight, bias, *sizes)


def _takes(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    if type(weight) is not PackedWeight or not torch.is_grad_enabled() or not x.requires_grad:
        return False
    learns = bias is not None and bias.requires_grad
    return not learns and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling()


def _values(weight: Tensor) -> Values:
    """What makes the plain values of a weight as it is packed now."""
    assert isinstance(weight, PackedWeight)
    packed, plain = weight.packed, weight.plain
    return lambda: plain(packed)


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Values, bias: Tensor | None, *sizes: Any) -> Tensor:
        ctx.values, ctx.shape, ctx.sizes = values, x.shape, sizes
        return _plain(x, values(), bias, *sizes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        stride, padding, dilation, groups = ctx.sizes
        # the input's values are not looked at: memory that is never written to costs nothing
        layout = torch.channels_last if grad.dim() == 4 else torch.channels_last_3d
        shape_only = torch.empty(ctx.shape, dtype=grad.dtype, memory_format=layout)
        found = torch.ops.aten.convolution_backward(
            grad, shape_only, ctx.values(), None, stride, padding, dilation, False, [0] * len(ctx.shape[2:]), groups,
            [True, False, False],
        )  # fmt: skip
        return found[0], *[None] * 6


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Values, bias: Tensor | None) -> Tensor:
        ctx.values = values
        return F.linear(x, values(), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad @ ctx.values(), None, None

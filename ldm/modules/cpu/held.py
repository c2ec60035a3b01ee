"""Weights that do not learn, held in 16 bits and computed with in 32: for processors that compute in 32 bits only.

Half the memory of weights, for the time that converting them takes at each use, forward and backward. The numbers are
those of a model whose weights were rounded. A large weight is converted a piece at a time: a fresh copy of the whole
would cost more in pages that the system has to clear than in arithmetic.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

PIECE = 2**21  # weights that are converted at once, 8 MB


class HeldLinear(nn.Linear):
    """``nn.Linear`` whose weight may be held in fewer bits than its input has; x [..., in] -> [..., out].

    What it keeps for the backward pass is the weight as it is held.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not is_held(self.weight, x):
            return super().forward(x)
        learns = self.weight.requires_grad or (self.bias is not None and self.bias.requires_grad)
        if learns or torch.compiler.is_compiling():
            return F.linear(x, self.weight.to(x.dtype), self.bias)
        return _Product.apply(x, self.weight, self.bias)


@functools.cache
def computes_in(dtype: torch.dtype) -> bool:
    """Whether this processor has quick kernels for a 16-bit precision."""
    if not torch.backends.mkldnn.is_available():
        return False
    kernels = torch.ops.mkldnn
    return (kernels._is_mkldnn_bf16_supported if dtype is torch.bfloat16 else kernels._is_mkldnn_fp16_supported)()


def computing_dtype(module: nn.Module) -> torch.dtype:
    """The precision that a module computes in: that of its norms and biases, for weights may be held in fewer bits."""
    first = next(module.parameters(), None)
    return next((p.dtype for p in module.parameters() if p.dim() == 1), torch.float32 if first is None else first.dtype)


def is_held(weight: Tensor, x: Tensor) -> bool:
    """Whether a weight has to be converted for an input. Under autocast it has not, which does that by itself."""
    return weight.dtype is not x.dtype and not torch.is_autocast_enabled(x.device.type)


def product(x: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [N, in] times a matrix [out, in] in any precision, and the bias [out]: [N, out] in that of x."""
    if matrix.dtype is x.dtype:
        return F.linear(x, matrix, bias)
    out = x.new_empty(len(x), len(matrix))
    for rows in _pieces(matrix):
        torch.mm(x, matrix[rows].to(x.dtype).T, out=out[:, rows])
    return out if bias is None else out.add_(bias)


def product_back(grad: Tensor, matrix: Tensor) -> Tensor:
    """The adjoint of ``product``: [N, out] -> [N, in]."""
    if matrix.dtype is grad.dtype:
        return grad @ matrix
    total = grad.new_zeros(len(grad), matrix.shape[1])
    for rows in _pieces(matrix):
        total.addmm_(grad[:, rows], matrix[rows].to(grad.dtype))
    return total


def _pieces(matrix: Tensor) -> Iterator[slice]:
    """Rows of a matrix, so many at a time that they are about PIECE weights."""
    step = max(1, PIECE // matrix.shape[1])
    return (slice(start, start + step) for start in range(0, len(matrix), step))


class _Product(torch.autograd.Function):
    """A linear layer that has no gradients of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return product(x.reshape(-1, x.shape[-1]), weight, bias).view(*x.shape[:-1], len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        back = product_back(grad.reshape(-1, grad.shape[-1]), weight)
        return back.view(*grad.shape[:-1], weight.shape[1]), None, None

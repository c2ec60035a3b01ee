"""Layers for training through a network that does not learn: the same functions and state dicts, less time and memory.

In textual inversion gradients flow through the whole network to one vector, and no weight wants any. A frozen
convolution need not keep its input then. On a CPU, PyTorch brings its weight into another order at every call, forward
and backward, which for the small maps deep in a UNet takes far longer than the convolution; as a matrix product over
the pixels' neighbourhoods it needs no other order.
"""

from __future__ import annotations

import itertools
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ldm.modules.attention import GEGLU
from ldm.modules.cpu.group_norm import GroupNorm
from ldm.modules.cpu.held import HeldLinear, is_held, product, product_back
from ldm.modules.diffusionmodules.resblock import ResBlock
from ldm.modules.diffusionmodules.util import checkpointed

NARROW, MANY = 320, 2**20  # channels up to which, and values of an input from which, a gated layer is computed again
SMALL_MAP = 256  # pixels in a batch up to which the matrix product is quicker
ModuleT = TypeVar("ModuleT", bound=nn.Module)


class FrozenConv2d(nn.Conv2d):
    """``nn.Conv2d`` whose weight has no gradient; x [B, C, H, W] -> [B, C', H', W'].

    On a CPU it keeps nothing of its input for the backward pass, and its weight is stored channels-last from the first
    such call on. Elsewhere, compiled, and under autocast, it is the plain layer. The weight may be held in fewer bits
    than the input has.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self._passes_gradients_only(x):
            weight = self.weight.to(x.dtype) if is_held(self.weight, x) else self.weight
            return self._conv_forward(x, weight, self.bias)
        if not self.weight.is_contiguous(memory_format=torch.channels_last):
            self.weight.data = self.weight.data.contiguous(memory_format=torch.channels_last)
        if self._is_common and x.shape[0] * x.shape[2] * x.shape[3] <= SMALL_MAP:
            return _SmallMap.apply(x, self.weight, self.bias)
        return _InputGradient.apply(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    @property
    def _is_common(self) -> bool:
        """3x3 at every pixel, the picture's edge padded."""
        sizes = (self.kernel_size, self.stride, self.padding, self.dilation, self.groups)
        return sizes == ((3, 3), (1, 1), (1, 1), (1, 1), 1)

    def _passes_gradients_only(self, x: Tensor) -> bool:
        learns = self.weight.requires_grad or (self.bias is not None and self.bias.requires_grad)
        as_is = not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling()
        on_cpu = x.device.type == "cpu" and x.dim() == 4
        return on_cpu and x.requires_grad and torch.is_grad_enabled() and not learns and as_is


class _InputGradient(torch.autograd.Function):
    """A convolution that remembers its weight and its input's shape alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *sizes: Any) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape, ctx.sizes = x.shape, sizes
        return F.conv2d(x, weight.to(x.dtype), bias, *sizes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.sizes
        # the input's values are not looked at: memory that is never written to costs nothing
        shape_only = torch.empty(ctx.shape, dtype=grad.dtype, memory_format=torch.channels_last)
        found = torch.ops.aten.convolution_backward(
            grad, shape_only, weight.to(grad.dtype), None, stride, padding, dilation, False, [0, 0], groups,
            [True, False, False],
        )  # fmt: skip
        return found[0], *[None] * 6


class _SmallMap(torch.autograd.Function):
    """A 3x3 convolution as one product of the pixels' neighbourhoods [B H W, 9 C] with the weight [9 C, C'].

    The weight [C', C, 3, 3] is stored channels-last, so that it is that matrix without a copy.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        pixels = product(neighbourhoods(x), _as_matrix(weight), bias)
        return pixels.view(x.shape[0], *x.shape[2:], -1).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        batch, _, height, width = grad.shape
        pixels = grad.permute(0, 2, 3, 1).reshape(batch * height * width, -1)
        around = product_back(pixels, _as_matrix(weight)).view(batch, height, width, 3, 3, -1)
        return sum_of_neighbourhoods(around).permute(0, 3, 1, 2), None, None


def _as_matrix(weight: Tensor) -> Tensor:
    """[C', C, 3, 3], stored channels-last -> [C', 9 C], a view."""
    return weight.permute(0, 2, 3, 1).flatten(1)


def neighbourhoods(x: Tensor) -> Tensor:
    """The 3x3 pixels around each pixel, zeros beyond the edge: [B, C, H, W] -> [B H W, 9 C], row, column, channel."""
    batch, channels, height, width = x.shape
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).contiguous()
    b, h, w, c = padded.stride()
    windows = padded.as_strided((batch, height, width, 3, 3, channels), (b, h, w, h, w, c))
    return windows.reshape(batch * height * width, 9 * channels)


def sum_of_neighbourhoods(around: Tensor) -> Tensor:
    """The adjoint of ``neighbourhoods``: [B, H, W, 3, 3, C] -> [B, H, W, C], summed in float32."""
    batch, height, width, _, _, channels = around.shape
    total = around.new_zeros(batch, height + 2, width + 2, channels, dtype=torch.float32)
    for row in range(3):
        for column in range(3):
            total[:, row : row + height, column : column + width] += around[:, :, :, row, column]
    return total[:, 1:-1, 1:-1].to(around.dtype)


class LeanGEGLU(nn.Module):
    """The gated layer, which keeps what it is computed from and computes the gate's activation twice.

    For many tokens of few channels, where values and gates are large and soon computed, it keeps its input alone.

    Shapes: [..., dim_in] -> [..., dim_out], as in :class:`GEGLU`.
    """

    def __init__(self, layer: GEGLU) -> None:
        super().__init__()
        self.proj = layer.proj

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():  # fuses this by itself
            value, gate = self.proj(x).chunk(2, dim=-1)
            return value * F.gelu(gate)
        again = x.requires_grad and x.shape[-1] <= NARROW and x.numel() >= MANY
        return checkpointed(self._gated, x, enabled=again)

    def _gated(self, x: Tensor) -> Tensor:
        return _Gate.apply(self.proj(x))


class _Gate(torch.autograd.Function):
    """y = value * gelu(gate), of [..., 2 D] -> [..., D]."""

    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        ctx.save_for_backward(both)
        value, gate = both.chunk(2, dim=-1)
        return F.gelu(gate).mul_(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (both,) = ctx.saved_tensors
        value, gate = both.chunk(2, dim=-1)
        made = torch.empty_like(both)
        of_value, of_gate = made.chunk(2, dim=-1)
        torch.mul(grad, F.gelu(gate), out=of_value)
        torch.ops.aten.gelu_backward.grad_input(grad * value, gate, grad_input=of_gate)
        return made


class LeanNormSiLU(GroupNorm):
    """Group normalisation and the SiLU behind it, which keep their input alone and compute the rest twice.

    Shapes: [B, C, ...] -> the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        return checkpointed(self._both, x, enabled=x.requires_grad and not torch.compiler.is_compiling())

    def _both(self, x: Tensor) -> Tensor:
        return F.silu(super().forward(x))


def lean_where_frozen(module: ModuleT) -> ModuleT:
    """Put these layers in the place of a module's plain ones whose weights do not learn; the module itself."""
    between = {m.out_layers for m in module.modules() if isinstance(m, ResBlock) and m.use_scale_shift_norm}
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            setattr(parent, name, _leaner(child))
        if isinstance(parent, nn.Sequential) and parent not in between:  # where the timestep comes behind the norm
            _join_norms(parent)
    return module


def _join_norms(row: nn.Sequential) -> None:
    """A frozen norm of a row and the SiLU behind it as one layer, which has the norm's place."""
    for i, (norm, activation) in enumerate(itertools.pairwise(list(row))):
        if type(norm) is GroupNorm and type(activation) is nn.SiLU and not _learns(norm):
            row[i], row[i + 1] = _as(LeanNormSiLU, norm), nn.Identity()


def hold_weights(module: ModuleT, dtype: torch.dtype) -> ModuleT:
    """Hold the weights of a module's linear layers and convolutions that do not learn in ``dtype``; the module itself.

    They go on computing in the precision of their input. Norms, biases and tables, which are small, stay as they are.
    """
    lean_where_frozen(module)
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Linear and not _learns(child):
                setattr(parent, name, _as(HeldLinear, child))
    for layer in module.modules():
        if isinstance(layer, (HeldLinear, FrozenConv2d)) and not _learns(layer):
            layer.weight.data = layer.weight.data.to(dtype)
    return module


def _learns(layer: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in layer.parameters())


def _leaner(layer: nn.Module) -> nn.Module:
    """What does the same with less; the layer itself where there is nothing."""
    if _learns(layer):
        return layer
    if isinstance(layer, GEGLU):
        return LeanGEGLU(layer)
    if type(layer) is not nn.Conv2d or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return layer
    return _as(FrozenConv2d, layer)


def _as(kind: type[nn.Module], layer: nn.Module) -> nn.Module:
    """A layer as one of another class, with which it shares its parameters, hooks and mode."""
    made = kind.__new__(kind)
    made.__dict__ = layer.__dict__.copy()
    return made

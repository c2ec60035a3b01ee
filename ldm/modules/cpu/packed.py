"""Layers for inference on a CPU: the same functions and state dicts as the plain ones, computed quicker.

PyTorch re-orders a weight for oneDNN at every call; a packed layer does it once, at its first call, when the input's
size is known. A packed weight has no gradient, and a call that wants one for its input takes the plain path; so does a
call under autocast, which does not know the packed kernels and would leave them in the weights' precision.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.modules.attention import GEGLU
from ldm.modules.diffusionmodules import resblock, vae_blocks

mkldnn = torch.ops.mkldnn
ModuleT = TypeVar("ModuleT", bound=nn.Module)


def takes_packed(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether a packed kernel computes a call; the plain one has gradients, other devices and the error messages."""
    involved = (x, weight) if bias is None else (x, weight, bias)
    wants_gradient = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in involved)
    on_cpu = x.device.type == "cpu" and x.dtype is weight.dtype and has_kernels(x.dtype)
    return on_cpu and not wants_gradient and not torch.is_autocast_enabled("cpu") and x.numel() > 0


@functools.cache
def has_kernels(dtype: torch.dtype) -> bool:
    """Whether this processor has quick kernels for packed weights of a precision."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype is torch.float32 or (dtype is torch.bfloat16 and mkldnn._is_mkldnn_bf16_supported())


class _Packed(nn.Module):
    """What both packed layers share: a weight that is either plain (strided) or packed (oneDNN's own layout)."""

    weight: Tensor

    @property
    def is_packed(self) -> bool:
        """Whether the weight has been re-ordered; from the first call on."""
        return self.weight.is_mkldnn

    def unpack(self) -> None:
        """Give the weight back its plain order; the next call packs it again."""
        if self.is_packed:
            self._set(self.weight.to_dense())

    def _set(self, weight: Tensor) -> None:
        self.weight = nn.Parameter(weight, requires_grad=False)

    def _plain_weight(self) -> Tensor:
        return self.weight.to_dense() if self.is_packed else self.weight

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles, which packed tensors cannot be part of."""
        self.unpack()
        return self.__dict__

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.unpack()
        return super()._apply(fn, recurse)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.is_packed:
            destination[prefix + "weight"] = self.weight.to_dense()

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        if prefix + "weight" in state_dict:
            self.unpack()
        super()._load_from_state_dict(state_dict, prefix, *args)


class PackedConv2d(_Packed, nn.Conv2d):
    """``nn.Conv2d`` with a packed weight; the output is stored channels-last.

    Shapes: x [B, in_channels, H, W] -> [B, out_channels, H', W'].
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or not takes_packed(x, self.weight, self.bias):
            return self._conv_forward(x, self._plain_weight(), self.bias)
        sizes = (list(self.padding), list(self.stride), list(self.dilation), self.groups)
        x = x.contiguous(memory_format=torch.channels_last)
        if not self.is_packed:
            self._set(mkldnn._reorder_convolution_weight(self.weight.detach(), *sizes, list(x.shape)))
        return mkldnn._convolution_pointwise(x, self.weight, self.bias, *sizes, "none", [], "")


class PackedLinear(_Packed, nn.Linear):
    """``nn.Linear`` with a packed weight; x [..., in_features] -> [..., out_features]."""

    def forward(self, x: Tensor) -> Tensor:
        if not takes_packed(x, self.weight, self.bias):
            return F.linear(x, self._plain_weight(), self.bias)
        if not self.is_packed:
            rows = x.numel() // x.shape[-1]
            self._set(mkldnn._reorder_linear_weight(self.weight.detach(), rows))
        return mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")


class _Derived(nn.Module):
    """A layer computed from packed tensors that are made of a plain layer's weight, which the state dict holds."""

    def __init__(self) -> None:
        super().__init__()
        self._packed: tuple[Tensor, ...] = ()  # made at the first call; empty: out of date

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles, which packed tensors cannot be part of."""
        return {**self.__dict__, "_packed": ()}

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._packed = ()
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any) -> None:
        self._packed = ()
        super()._load_from_state_dict(*args)


class PackedUpsample(_Derived):
    """Doubling by nearest neighbours and a 3x3 convolution as one 4x4 transposed convolution of stride 2.

    An output pixel sees two different rows and columns of the input at most, so that four products do for nine; the
    weights that meet the same input pixel are added once.

    Shapes: [B, C, H, W] -> [B, C', 2H, 2W].
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        """``conv``: the 3x3 convolution, with a padding of 1."""
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        if not takes_packed(x, self.conv.weight, self.conv.bias):
            return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        sizes = ([1, 1], [0, 0], [2, 2], [1, 1], 1)  # padding, that of the output, stride, dilation, groups
        x = x.contiguous(memory_format=torch.channels_last)
        if not self._packed:
            weight = fold_upsampling(self.conv.weight.detach())
            self._packed = (mkldnn._reorder_convolution_transpose_weight(weight, *sizes, list(x.shape)),)
        return mkldnn._convolution_transpose_pointwise(x, *self._packed, self.conv.bias, *sizes, "none", [], "")


class PackedGEGLU(_Derived):
    """The gated layer with its activation and its product computed inside the matrix products."""

    def __init__(self, layer: GEGLU) -> None:
        super().__init__()
        self.proj = layer.proj

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.proj.weight, self.proj.bias
        if not takes_packed(x, weight, bias):
            value, gate = self.proj(x).chunk(2, dim=-1)
            return value * F.gelu(gate)
        if not self._packed:
            rows = x.numel() // x.shape[-1]
            halves = weight.detach().chunk(2)
            self._packed = tuple(mkldnn._reorder_linear_weight(half.contiguous(), rows) for half in halves)
        of_value, of_gate = self._packed
        value_bias, gate_bias = bias.chunk(2)
        gate = mkldnn._linear_pointwise(x, of_gate, gate_bias, "gelu", [], "none")
        return mkldnn._linear_pointwise.binary(x, gate, of_value, value_bias, "mul")


def fold_upsampling(weight: Tensor) -> Tensor:
    """Weight [C', C, 3, 3] of a convolution after nearest-neighbour doubling -> transposed convolution [C, C', 4, 4].

    A pixel of the input is seen at two neighbouring places of the doubled one, so that entry i of the result is the
    sum of the (reversed) entries i - 1 and i: convolved with [1, 1] along both axes.
    """
    reversed_weight = weight.float().flip(2, 3).transpose(0, 1)
    padded = F.pad(reversed_weight, (1, 1, 1, 1))
    rows = padded[:, :, :-1] + padded[:, :, 1:]
    return (rows[..., :-1] + rows[..., 1:]).to(weight.dtype).contiguous()


def pack_for_inference(module: ModuleT) -> ModuleT:
    """Put packed layers in the place of a module's plain ones, in float32 or bfloat16 on a CPU; the module itself.

    Layers of other classes, devices and precisions, and a root that is itself such a layer, stay as they are. Hooks
    of linear layers and convolutions stay with them. Nothing is computed yet: a layer packs its weight when it is
    first called.
    """
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            setattr(parent, name, _quicker(child))
    return module


def _quicker(layer: nn.Module) -> nn.Module:
    """What computes the layer quicker; the layer itself where there is nothing."""
    if type(layer) in (resblock.Upsample, vae_blocks.Upsample):
        conv = dict(layer.named_children()).get("conv")
        return PackedUpsample(conv) if isinstance(conv, nn.Conv2d) and _fits(conv) else layer
    if isinstance(layer, GEGLU):
        return PackedGEGLU(layer) if _fits(layer.proj) else layer
    kind = _SAME_WEIGHTS.get(type(layer))
    if kind is None or not _fits(layer):
        return layer
    made = kind.__new__(kind)
    made.__dict__ = layer.__dict__.copy()  # parameters, hooks and mode are shared
    return made


_SAME_WEIGHTS: dict[type[nn.Module], type[nn.Module]] = {nn.Conv2d: PackedConv2d, nn.Linear: PackedLinear}


def _fits(layer: nn.Module) -> bool:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    plain = not isinstance(layer, nn.Conv2d) or (layer.padding_mode == "zeros" and not isinstance(layer.padding, str))
    return plain and weight.device.type == "cpu" and has_kernels(weight.dtype)

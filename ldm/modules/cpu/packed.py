"""Layers for inference on a CPU: the same functions and state dicts as the plain ones, computed quicker.

PyTorch re-orders a weight for oneDNN at every call; a packed layer does it once, at its first call, when the input's
size is known. A packed weight has no gradient, and a call that wants one for its input takes the plain path; so does a
call under autocast, which does not know the packed kernels and would leave them in the weights' precision.
"""

from __future__ import annotations

import functools
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.modules.attention import GEGLU
from ldm.modules.cpu import through_packed
from ldm.modules.cpu.held import computes_in
from ldm.modules.cpu.packed_weight import Packed, PackedWeight, can_pack, pack_weight, values_of
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
    if dtype is torch.float32:
        return torch.backends.mkldnn.is_available()
    return dtype is torch.bfloat16 and computes_in(dtype)


class _Packing(nn.Module):
    """What layers with a packed weight share."""

    packed_for: torch.Size | None = None  # the first input's; for later ones, and when packed again, the same layout

    def reorder(self, weight: Tensor, shape: torch.Size) -> Packed:
        """The weight's values in the layout that an input of this shape asks for."""
        raise NotImplementedError

    @staticmethod
    def restore(packed: Packed) -> Tensor:
        """The plain values of what ``reorder`` gave."""
        return packed[0].to_dense()

    def parts(self, layer: nn.Module, x: Tensor) -> Packed | None:
        """The packed weight of a layer for a call, packed now where it is plain; None: the call takes the plain path.

        Whatever has changed the weight since has made it plain, or is another one. One that may be changed unseen is
        packed for each call anew, as PyTorch does it, and for the same numbers.
        """
        weight, bias = layer._parameters.get("weight"), layer._parameters.get("bias")
        if type(weight) is PackedWeight:
            return weight.packed if takes_packed(x, weight.packed[0], bias) else None
        if weight is None or not takes_packed(x, weight, bias):
            return None
        self.packed_for = self.packed_for or x.shape
        stays = can_pack(weight)
        packed = self.reorder(weight.detach(), self.packed_for)
        if stays:
            pack_weight(weight, packed, self.restore)
        return packed


class _SameWeight(_Packing):
    """A layer with the parameters of the plain one."""

    weight: Tensor

    @property
    def is_packed(self) -> bool:
        """Whether the weight has been re-ordered; from the first call on, until somebody uses it."""
        return type(self._parameters.get("weight")) is PackedWeight


def plain_conv(layer: nn.Conv2d, x: Tensor, weight: Tensor) -> Tensor:
    """What a plain layer computes with a weight that may be packed."""
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str) or x.dim() != 4:
        return layer._conv_forward(x, values_of(weight), layer.bias)
    return through_packed.conv(x, weight, layer.bias, (layer.stride, layer.padding, layer.dilation, layer.groups))


class PackedConv2d(_SameWeight, nn.Conv2d):
    """``nn.Conv2d`` with a packed weight; the output is stored channels-last.

    Shapes: x [B, in_channels, H, W] -> [B, out_channels, H', W'].
    """

    def reorder(self, weight: Tensor, shape: torch.Size) -> Packed:
        return (mkldnn._reorder_convolution_weight(weight, *self._sizes, list(shape)),)

    def forward(self, x: Tensor) -> Tensor:
        packed = self.parts(self, x) if x.dim() == 4 else None
        if packed is None:
            return plain_conv(self, x, self.weight)
        x = x.contiguous(memory_format=torch.channels_last)
        return mkldnn._convolution_pointwise(x, *packed, self.bias, *self._sizes, "none", [], "")

    @property
    def _sizes(self) -> tuple[list[int], list[int], list[int], int]:
        assert not isinstance(self.padding, str)  # such layers are not packed
        return list(self.padding), list(self.stride), list(self.dilation), self.groups


class PackedConvOverTime(_SameWeight, nn.Conv3d):
    """A convolution over frames alone as one of two dimensions, with a packed weight; stored channels-last.

    Shapes: x [B, in_channels, T, H, W] -> [B, out_channels, T', H, W].
    """

    def reorder(self, weight: Tensor, shape: torch.Size) -> Packed:
        return (mkldnn._reorder_convolution_weight(weight[..., 0], *self._sizes, list(shape)),)

    @staticmethod
    def restore(packed: Packed) -> Tensor:
        return packed[0].to_dense()[..., None]

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 5:
            return self._conv_forward(x, values_of(self.weight), self.bias)
        flat = x.flatten(3)  # no copy of channels-last frames
        packed = self.parts(self, flat)
        if packed is None:
            sizes = self.stride, self.padding, self.dilation, self.groups
            return through_packed.conv(x, self.weight, self.bias, sizes)
        flat = flat.contiguous(memory_format=torch.channels_last)
        out = mkldnn._convolution_pointwise(flat, *packed, self.bias, *self._sizes, "none", [], "")
        return out.unflatten(3, x.shape[3:])

    @property
    def _sizes(self) -> tuple[list[int], list[int], list[int], int]:
        return [int(self.padding[0]), 0], [1, 1], [1, 1], self.groups

    @staticmethod
    def computes(layer: nn.Conv3d) -> bool:
        """Whether a layer looks at neighbouring frames and at nothing else."""
        same_place = layer.kernel_size[1:] == (1, 1) and tuple(layer.padding[1:]) == (0, 0)
        return same_place and layer.stride == (1, 1, 1) and layer.dilation == (1, 1, 1)


class PackedLinear(_SameWeight, nn.Linear):
    """``nn.Linear`` with a packed weight; x [..., in_features] -> [..., out_features]."""

    def reorder(self, weight: Tensor, shape: torch.Size) -> Packed:
        return (mkldnn._reorder_linear_weight(weight, shape[:-1].numel()),)

    def forward(self, x: Tensor) -> Tensor:
        packed = self.parts(self, x)
        if packed is None:
            return through_packed.linear(x, self.weight, self.bias)
        return mkldnn._linear_pointwise(x, *packed, self.bias, "none", [], "")


class _AroundPlain(_Packing):
    """A layer that computes what a plain one inside it would compute as a part of something."""

    kind: type[nn.Module]  # of the plain one

    def parts_of(self, inner: nn.Module, x: Tensor) -> Packed | None:
        """As ``parts``; None as well where calling the inner layer does more than it did when it was built."""
        return self.parts(inner, x) if self._is_as_built(inner) else None

    def plainly(self, inner: nn.Module, x: Tensor) -> Tensor:
        """What the inner layer says; a packed weight stays packed where nothing else looks at it."""
        weight, bias = inner._parameters.get("weight"), inner._parameters.get("bias")
        if type(weight) is not PackedWeight or not self._is_as_built(inner):
            return inner(x)
        if isinstance(inner, nn.Conv2d):
            return plain_conv(inner, x, weight)
        return through_packed.linear(x, weight, bias)

    def _is_as_built(self, inner: nn.Module) -> bool:
        changed = inner._forward_hooks or inner._forward_pre_hooks or "forward" in inner.__dict__
        return type(inner) is self.kind and not changed


class PackedUpsample(_AroundPlain):
    """Doubling by nearest neighbours and a 3x3 convolution as one 4x4 transposed convolution of stride 2.

    An output pixel sees two different rows and columns of the input at most, so that four products do for nine; the
    weights that meet the same input pixel are added once.

    Shapes: [B, C, H, W] -> [B, C', 2H, 2W].
    """

    kind = nn.Conv2d
    SIZES = ([1, 1], [0, 0], [2, 2], [1, 1], 1)  # padding, that of the output, stride, dilation, groups

    def __init__(self, conv: nn.Conv2d) -> None:
        """``conv``: the 3x3 convolution, with a padding of 1."""
        super().__init__()
        self.conv = conv

    def reorder(self, weight: Tensor, shape: torch.Size) -> Packed:
        folded = mkldnn._reorder_convolution_transpose_weight(fold_upsampling(weight), *self.SIZES, list(shape))
        return folded, weight

    @staticmethod
    def restore(packed: Packed) -> Tensor:
        return packed[1]  # which cannot be had from the folded one

    def forward(self, x: Tensor) -> Tensor:
        packed = self.parts_of(self.conv, x)
        if packed is None:
            return self.plainly(self.conv, F.interpolate(x, scale_factor=2.0, mode="nearest"))
        x = x.contiguous(memory_format=torch.channels_last)
        return mkldnn._convolution_transpose_pointwise(x, packed[0], self.conv.bias, *self.SIZES, "none", [], "")


class PackedGEGLU(_AroundPlain):
    """The gated layer with its activation and its product computed inside the matrix products.

    Shapes: [..., dim_in] -> [..., dim_out], as in :class:`GEGLU`.
    """

    kind = nn.Linear

    def __init__(self, layer: GEGLU) -> None:
        super().__init__()
        self.proj = layer.proj

    def reorder(self, weight: Tensor, shape: torch.Size) -> Packed:
        rows = shape[:-1].numel()
        return tuple(mkldnn._reorder_linear_weight(half.contiguous(), rows) for half in weight.chunk(2))

    @staticmethod
    def restore(packed: Packed) -> Tensor:
        return torch.cat([half.to_dense() for half in packed])

    def forward(self, x: Tensor) -> Tensor:
        packed = self.parts_of(self.proj, x)
        if packed is None:
            value, gate = self.plainly(self.proj, x).chunk(2, dim=-1)
            return value * F.gelu(gate)
        of_value, of_gate = packed
        value_bias, gate_bias = self.proj.bias.chunk(2)
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
    first called, and again when it is called after somebody used the weight; see ``ldm.modules.cpu.packed_weight``.
    Weights of packed layers lose their ``requires_grad``; one that gets it back is not packed.
    """
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            setattr(parent, name, _quicker(child))
    return module


def _quicker(layer: nn.Module) -> nn.Module:
    """What computes the layer quicker; the layer itself where there is nothing."""
    if type(layer) in (resblock.Upsample, vae_blocks.Upsample):
        conv = dict(layer.named_children()).get("conv")
        return PackedUpsample(conv) if isinstance(conv, nn.Conv2d) and _taken(conv) else layer
    if isinstance(layer, GEGLU):
        return PackedGEGLU(layer) if _taken(layer.proj) else layer
    kind = _SAME_WEIGHTS.get(type(layer))
    if kind is None or not _taken(layer):
        return layer
    made = kind.__new__(kind)
    made.__dict__ = layer.__dict__.copy()  # parameters, hooks and mode are shared
    return made


_SAME_WEIGHTS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: PackedConv2d,
    nn.Conv3d: PackedConvOverTime,
    nn.Linear: PackedLinear,
}


def _taken(layer: nn.Module) -> bool:
    """Whether a layer's weight can be packed; it has no gradient then."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    plain = True
    if isinstance(layer, nn.Conv2d | nn.Conv3d):
        plain = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    if isinstance(layer, nn.Conv3d):
        plain = plain and PackedConvOverTime.computes(layer)
    fits = plain and weight.device.type == "cpu" and has_kernels(weight.dtype)
    if fits:
        weight.requires_grad_(False)
    return fits

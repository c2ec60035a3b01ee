"""A weight in oneDNN's own layout that stays a parameter like another to whoever looks at it.

Packing would otherwise make edits of a weight go unseen, or end in errors of a library that nobody called. Here every
use of a packed weight, reading or writing, gives it its plain values back first, so that assignments, ``.data``,
in-place operations, state dicts, parametrisations and optimisers find what they expect, and its layer packs it anew at
the next call.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ldm.util import UserError

Packed = tuple[Tensor, ...]

# What may be asked of a weight without giving it its plain values back.
ASKED = {
    *(getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "requires_grad", "ndim", "is_leaf")),
    *(getattr(Tensor, name).__get__ for name in ("is_meta", "is_cuda", "is_mkldnn", "is_sparse", "is_quantized")),
    *(getattr(Tensor, name) for name in ("size", "dim", "numel", "nelement", "element_size", "is_floating_point")),
}


class PackedWeight(nn.Parameter):
    """The shape, precision and device of a weight whose values are in ``packed``; they are NaN here.

    It is made by ``pack_weight`` out of a parameter, which keeps its identity, and becomes that parameter again when
    it is used.
    """

    packed: Packed
    plain: Callable[[Packed], Tensor]  # what is packed -> the plain values

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func not in ASKED:
            for weight in tree_leaves((args, kwargs)):
                if type(weight) is PackedWeight:
                    unpack_weight(weight)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(unpack_weight(self), memo)

    def __reduce_ex__(self, proto: Any) -> Any:
        return unpack_weight(self).__reduce_ex__(proto)


def can_pack(weight: Any) -> bool:
    """Whether a plain weight may stay packed: it has no gradient, and nobody holds a view of its values.

    A view could change them later, which the packed ones would not see. Views of values that share one mapped file with
    others cannot be told apart from these, and are not looked for.
    """
    if type(weight) is not nn.Parameter or weight.requires_grad or weakref.getweakrefs(weight):
        return False
    if weight._use_count() > 1:  # type: ignore[attr-defined]  # a graph of gradients, say
        return False
    storage = weight.untyped_storage()
    alone = storage.nbytes() == weight.numel() * weight.element_size()
    return not alone or torch._C._storage_Use_Count(storage._cdata) <= 2  # the weight, and the handle made here


def pack_weight(weight: nn.Parameter, packed: Packed, plain: Callable[[Packed], Tensor]) -> None:
    """Make a plain parameter, of which ``can_pack`` says so, a packed one."""
    shell = PackedWeight(torch.full((), torch.nan, dtype=weight.dtype).expand(weight.shape), requires_grad=False)
    shell.__dict__ |= {**weight.__dict__, "packed": packed, "plain": plain}
    _swap(weight, shell)


def unpack_weight(weight: PackedWeight) -> nn.Parameter:
    """Make a packed weight a plain parameter again, the same object.

    Raises:
        UserError: somebody holds a weak reference to it, so that it cannot.
    """
    with torch.inference_mode(False), torch.no_grad():
        values = nn.Parameter(weight.plain(weight.packed), requires_grad=False)
    values.__dict__ |= {key: value for key, value in weight.__dict__.items() if key not in ("packed", "plain")}
    try:
        _swap(weight, values)
    except RuntimeError as error:
        raise UserError(f"a weight that is packed for the CPU cannot be used as a plain one: {error}") from error
    return weight


def values_of(weight: Tensor) -> Tensor:
    """A weight's plain values; a packed one stays packed, and these are not its own."""
    return weight.plain(weight.packed) if isinstance(weight, PackedWeight) else weight


def _swap(one: nn.Parameter, other: nn.Parameter) -> None:
    with torch._C.DisableTorchFunctionSubclass():
        torch.utils.swap_tensors(one, other)

"""Modules whose tensors have shapes and no values yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

# as torch.nn.init and Tensor call them
RANDOM = {"normal_", "uniform_", "trunc_normal_", "kaiming_normal_", "kaiming_uniform_", "xavier_normal_",
          "xavier_uniform_", "orthogonal_"}  # fmt: skip


class _Unfilled(TorchFunctionMode):
    """Leaves meta tensors alone that are to be filled with random numbers, or made of them.

    They have no place for any, but torch goes to Python for such a call and imports its compiler, which takes more than
    a second.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if getattr(func, "__name__", "") in RANDOM:
            tensor = args[0] if args else named.get("tensor")
            if isinstance(tensor, torch.Tensor) and tensor.is_meta:
                return tensor
        if func in (torch.rand, torch.randn) and named.get("device") is None:
            plain = {key: value for key, value in named.items() if key not in ("generator", "device")}
            return torch.empty(*args, **plain, device="meta")
        return func(*args, **named)


@contextmanager
def without_values() -> Iterator[None]:
    """Within the block modules are built on the meta device: at once, and in no memory."""
    with torch.device("meta"), _Unfilled():
        yield

"""Pictures whose opposite borders fit together: convolutions that go on at the other side."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


@contextlib.contextmanager
def tiled(*modules: nn.Module) -> Iterator[None]:
    """Within the block every convolution that pads with zeros sees the opposite border there instead.

    By hooks around each: its input is made larger on all sides, and its output smaller, so that it does not matter what
    computes it. Attention and normalisation do not know where a place is.
    """
    convolutions = [layer for module in modules for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    with contextlib.ExitStack() as hooks:
        for layer in convolutions:
            if not isinstance(layer.padding, str) and any(layer.padding):
                hooks.callback(layer.register_forward_pre_hook(_widen).remove)
                hooks.callback(layer.register_forward_hook(_cut).remove)
        yield


def _margins(layer: nn.Conv2d) -> tuple[int, int]:
    """How many places (rows, columns) the output of a widened layer is cut by on each side."""
    assert not isinstance(layer.padding, str)
    rows, columns = (-(-padding // stride) for padding, stride in zip(layer.padding, layer.stride, strict=True))
    return rows, columns


def _widen(layer: nn.Conv2d, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    x: Tensor = inputs[0]
    rows, columns = (count * stride for count, stride in zip(_margins(layer), layer.stride, strict=True))
    return F.pad(x, (columns, columns, rows, rows), mode="circular"), *inputs[1:]


def _cut(layer: nn.Conv2d, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    rows, columns = _margins(layer)
    return output[..., rows : output.shape[-2] - rows, columns : output.shape[-1] - columns]

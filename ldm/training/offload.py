"""Frozen weights that lie in a file instead of in memory, and come page by page when a layer is asked.

What a run's step asks for a moment only, the autoencoder and the text encoder, takes no memory then while the network
has its turn. The file is mapped: nothing that reads weights, or writes them, has to know.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from ldm.util import ConfigError, UserError

PARTS = ("first_stage_model", "cond_stage_model", "conditioner")  # of a model, as far as it has them


def offload(model: nn.Module, lightning: DictConfig, device: torch.device, folder: Path) -> None:
    """``lightning.offload``: the frozen weights of the autoencoder and the text encoders lie in ``folder``.

    Raises:
        ConfigError: the model has no such parts.
        UserError: the file cannot be written.
    """
    if not lightning.get("offload"):
        return
    found = [part for name in PARTS if isinstance(part := getattr(model, name, None), nn.Module)]
    parts = list(dict.fromkeys(found))  # SDXL's conditioner has both names
    if not parts:
        raise ConfigError("lightning.offload is for a model with an autoencoder or a text encoder; this one has none")
    if device.type != "cpu":
        return  # weights stay on the device
    for part in parts:
        lay_in_file(part, folder)


def lay_in_file(module: nn.Module, folder: Path) -> None:
    """Have the weights of a module that do not learn in a file without a name, which ends with the process.

    Values, types and orders in memory stay; each layer's pages are given back when it has answered.

    Raises:
        UserError: the file cannot be written.
    """
    weights = [weight for weight in module.parameters() if not weight.requires_grad and weight.numel()]
    if not weights or not hasattr(mmap, "MADV_DONTNEED"):
        return
    stored = [in_stored_order(weight.data) for weight in weights]
    try:
        pages, starts = written([values for values, _ in stored], folder)
    except OSError as error:
        raise UserError(f"lightning.offload: the weights cannot be written to '{folder}': {error}") from error
    spans: dict[nn.Parameter, tuple[int, int]] = {}
    for weight, (values, back), start in zip(weights, stored, starts, strict=True):
        flat = torch.frombuffer(pages, dtype=values.dtype, count=values.numel(), offset=start)
        weight.data = flat.view(values.shape).permute(back)
        spans[weight] = (start, values.nbytes)
    for layer in module.modules():
        if any(weight in spans for weight in layer.parameters(recurse=False)):
            layer.register_forward_hook(Release(pages, [spans[one] for one in layer.parameters() if one in spans]))


class Release:
    """A hook that gives a layer's pages back: (start, length) of each weight in a file."""

    def __init__(self, pages: mmap.mmap, spans: Sequence[tuple[int, int]]) -> None:
        self.pages, self.spans = pages, spans

    def __call__(self, *_: Any) -> None:
        for start, length in self.spans:
            self.pages.madvise(mmap.MADV_DONTNEED, start, length)


def in_stored_order(value: Tensor) -> tuple[Tensor, list[int]]:
    """A tensor with its axes as they lie in memory, contiguous, and the permutation that leads back."""
    order = sorted(range(value.dim()), key=lambda axis: -value.stride()[axis])
    return value.permute(order).contiguous(), [order.index(axis) for axis in range(value.dim())]


def written(values: Sequence[Tensor], folder: Path) -> tuple[mmap.mmap, list[int]]:
    """A mapped file with the bytes of contiguous tensors, and where each begins: at a page."""
    starts = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for value in values:
            starts.append(file.tell())
            file.write(value.reshape(-1).view(torch.uint8).numpy().data)
            file.write(bytes(-file.tell() % mmap.PAGESIZE))
        file.flush()
        return mmap.mmap(file.fileno(), 0), starts

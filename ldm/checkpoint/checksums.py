"""A checksum over tensors, for files that have none of their own and are read long after they were written."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import torch
from torch import Tensor

from ldm.checkpoint.source import MappedTensors

FIELD = "checksum"  # the text field of a safetensors file that holds it


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """CRC-32 of names, types, shapes and bytes of tensors; the memory of those that are mapped is given back."""
    found = 0
    sources = tensors.sources if isinstance(tensors, MappedTensors) else []
    for name in sorted(tensors):
        tensor = tensors[name]
        found = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), found)
        if tensor.numel():
            data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            found = zlib.crc32(data.numpy().data, found)
        for source in sources:
            source.release(tensor)
    return f"{found:08x}"


def is_whole(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bool:
    """Whether tensors are those that were written; files of earlier versions have no checksum and count as whole."""
    return FIELD not in metadata or metadata[FIELD] == checksum(tensors)

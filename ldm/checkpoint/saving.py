"""Writing weights: to a temporary file that is renamed, so that an older file survives whatever goes wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm.checkpoint.formats import SAFETENSORS_DTYPES
from ldm.util import UserError, atomic_write

_TORCH_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin")
_DTYPE_NAMES = {dtype: name for name, dtype in SAFETENSORS_DTYPES.items()}


def save_state_dict(
    state_dict: Mapping[str, Tensor], path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None
) -> None:
    """Write weights; the suffix chooses the format.

    Args:
        state_dict: name to tensor, on any device.
        path: ``.safetensors``, or ``.ckpt``/``.pt``/``.pth``/``.bin``, which hold ``{'state_dict': ...}``.
        metadata: text fields of a safetensors file; further entries beside ``state_dict`` otherwise.

    Raises:
        UserError: an unknown suffix, a value that is not a tensor, a full disk or an unwritable folder.
    """
    path = Path(path)
    wrong = next((key for key, value in state_dict.items() if not isinstance(value, Tensor)), None)
    if wrong is not None:
        raise UserError(f"cannot write '{path}': '{wrong}' is a {type(state_dict[wrong]).__name__}, not a tensor")
    if path.suffix == ".safetensors":
        with atomic_write(path) as temporary:
            _write_safetensors(state_dict, temporary, metadata or {})
    else:
        owned = {key: _own_storage(value) for key, value in state_dict.items()}
        write_file({"state_dict": owned, **(metadata or {})}, path)


def write_file(value: Any, path: str | os.PathLike[str]) -> None:
    """Write any nested object of tensors and plain values in torch's format, such as an embedding's ``.pt``.

    Raises:
        UserError: an unknown suffix, a full disk or an unwritable folder; an older file survives.
    """
    path = Path(path)
    if path.suffix not in _TORCH_SUFFIXES:
        known = ", ".join((".safetensors", *_TORCH_SUFFIXES))
        raise UserError(f"cannot write '{path}': the suffix should be one of {known}")
    with atomic_write(path) as temporary:
        try:
            with temporary.open("wb") as file:
                torch.save(value, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # torch's writer stumbles over the failed write once more
                raise error.__context__ from error
            raise


def _own_storage(tensor: Tensor) -> Tensor:
    """The tensor without the rest of a larger storage that it may be a view of."""
    tensor = tensor.detach().contiguous()
    return tensor.clone() if tensor.untyped_storage().nbytes() > tensor.nbytes else tensor


def _write_safetensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, Any]) -> None:
    """Header, then the bytes of one tensor after the other: no second copy of the weights in memory.

    Tensors that share memory are written once each, because the format has no way to say that they do.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **{str(k): str(v) for k, v in metadata.items()}}}
    # Widest types first: then every tensor lies at a multiple of its element size.
    order = sorted(tensors, key=lambda key: (-tensors[key].element_size(), key))
    offset = 0
    for key in order:
        tensor = tensors[key]
        if tensor.dtype not in _DTYPE_NAMES:
            raise UserError(f"cannot write '{key}' as safetensors: the format has no type {tensor.dtype}")
        end = offset + tensor.numel() * tensor.element_size()
        header[key] = {"dtype": _DTYPE_NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for key in order:
            data = tensors[key].detach().cpu().contiguous().reshape(-1)
            file.write(data.view(torch.uint8).numpy().data)

"""Writing weights: to a temporary file that is renamed, so that an older file survives whatever goes wrong."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, TensorSpec, serialize_file
from torch import Tensor

from ldm.util import UserError, atomic_write

_TORCH_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin")


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
    """By the library, from where the tensors lie: no second copy of the weights in memory.

    Tensors that share memory are written once each, because the format has no way to say that they do; the library's
    ``save_file`` refuses them, its ``serialize_file`` does not.
    """
    plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    specs = {key: _spec(key, tensor) for key, tensor in plain.items()}
    mode = path.stat().st_mode
    try:
        serialize_file(specs, path, {"format": "pt", **{str(key): str(value) for key, value in metadata.items()}})
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))  # it has no kind of error of its own for a full disk
        raise OSError(number and int(number[1]), os.strerror(int(number[1])) if number else str(error)) from error
    path.chmod(mode)  # it puts a file of its own there, which nobody else may read
    _sort_metadata(path)


def _spec(key: str, tensor: Tensor) -> TensorSpec:
    try:
        dtype = str(tensor.dtype).removeprefix("torch.")
        return TensorSpec(dtype=dtype, shape=tensor.shape, data_ptr=tensor.data_ptr(), data_len=tensor.nbytes)
    except SafetensorError as error:
        raise UserError(f"cannot write '{key}' as safetensors: the format has no type {tensor.dtype}") from error


def _sort_metadata(path: Path) -> None:
    """Put a header's text fields in order, in place: the library writes them in a random one.

    Without this, three files of the same weights and eight fields had three different contents.
    """
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(size)
        if len(text) == size:
            file.seek(8)
            file.write(text)

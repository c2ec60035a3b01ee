"""What a result depends on, beside it as JSON: for people, and to know what is finished."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ldm.modules.cpu.packed_weight import values_of
from ldm.pictures.images import read_parameters
from ldm.util import UserError, atomic_write

PROBES = 1024  # values of each weight that go into a model's fingerprint


def fingerprint(model: torch.nn.Module) -> str:
    """What tells a model's weights from others': a hash of every weight's name, shape and some of its values.

    The values are spread evenly over each weight, so that any training or merging changes it. It is the same on every
    device, but not at every precision. Weights that are packed for the CPU stay packed.
    """
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict(keep_vars=True).items()):
        flat = values_of(value).detach().reshape(-1)
        stride = max(1, flat.numel() // PROBES)
        probes = flat[::stride][:PROBES].to("cpu", torch.float64)
        digest.update(f"{name}{list(value.shape)}".encode())
        digest.update(probes.numpy().tobytes())
    return digest.hexdigest()[:32]


def tensor_hash(tensor: torch.Tensor) -> str:
    """A hash of a tensor's shape and values."""
    values = tensor.detach().to("cpu", torch.float32).contiguous()
    return hashlib.sha256(f"{list(values.shape)}".encode() + values.numpy().tobytes()).hexdigest()


def write_record(path: Path, parameters: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Write ``about`` (where, how long) and ``parameters`` (what the result depends on) as JSON.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    with atomic_write(path) as temporary:
        text = json.dumps({**about, "parameters": dict(parameters)}, indent=1, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def is_finished(picture: Path, record: Path, parameters: Mapping[str, Any]) -> bool:
    """Whether a picture is there that was made with exactly these parameters.

    The record is written after the picture, so that a picture without one is not finished.
    """
    if not picture.is_file() or not record.is_file():
        return False
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("parameters") == json.loads(json.dumps(dict(parameters)))


def is_of(picture: Path, parameters: Mapping[str, Any]) -> bool:
    """Whether a picture was made with exactly these parameters, by its record or, where that is not, by itself."""
    return is_finished(picture, picture.with_suffix(".json"), parameters) or has_parameters(picture, parameters)


def has_parameters(picture: Path, parameters: Mapping[str, Any]) -> bool:
    """Whether these parameters are written in a picture."""
    try:
        return read_parameters(picture) == json.loads(json.dumps(dict(parameters)))
    except UserError:
        return False

"""Latents of training pictures in a file, all of them or those that a run has needed so far."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldm.checkpoint import CHECKSUM, checksum, is_whole, read_metadata, read_state_dict, save_state_dict
from ldm.util import UserError, parse_json

log = logging.getLogger(__name__)

PLAIN = (str, int, float, bool, type(None))
IN_PART = " in part"  # ends what a file was made from while some items are missing: older versions make it anew


@dataclass
class Latents:
    """Moments of different pictures, and the items of a data set that have them."""

    moments: Tensor  # [M, 2C, h, w] of M pictures
    which: Tensor  # [N], the picture of each item; -1: not encoded yet
    fields: list[dict[str, Any] | None] | None  # what else the items hold, where that can be kept
    names: Tensor | None = None  # [M, 16] uint8, what tells the M pictures apart

    @property
    def is_complete(self) -> bool:
        return bool((self.which >= 0).all())


def ingredients(data: Any, first_stage: nn.Module) -> str:
    """Changes when the data set's settings or any weight of the autoencoder change."""
    digest = hashlib.blake2b(digest_size=16)
    settings = {key: value for key, value in vars(data).items() if isinstance(value, (*PLAIN, list, tuple))}
    digest.update(f"{type(data).__module__}.{type(data).__qualname__} {len(data)} {sorted(settings.items())}".encode())
    for name, tensor in first_stage.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def is_made_from(path: Path, key: str) -> bool:
    """Whether the file exists, is whole and was made from those ingredients, be it in part."""
    if not path.is_file():
        return False
    try:
        about = read_metadata(path)
        if about.get("made_from", "").removesuffix(IN_PART) != key:
            log.warning("'%s' was made from other pictures or another autoencoder: encoding again", path)
            return False
        if is_whole(read_state_dict(path), about):
            return True
    except UserError as error:
        log.warning("%s: encoding again", error)
        return False
    log.warning("the latents in '%s' are not those that were written: encoding again", path)
    return False


def write_latents(latents: Latents, path: Path, key: str) -> None:
    """Write moments and fields into one safetensors file.

    Raises:
        UserError: it cannot be written.
    """
    text = json.dumps(latents.fields, ensure_ascii=False).encode()
    tensors = {
        "moments": latents.moments,
        "which": latents.which,
        "fields": torch.frombuffer(bytearray(text), dtype=torch.uint8),
    }
    if not latents.is_complete and latents.names is not None:
        tensors["names"] = latents.names
    made_from = key if latents.is_complete else key + IN_PART
    save_state_dict(tensors, path, {"made_from": made_from, CHECKSUM: checksum(tensors)})


def read_latents(path: Path) -> Latents:
    """What :func:`write_latents` wrote; the moments stay mapped to the file.

    Raises:
        UserError: something else is in the file.
    """
    tensors: Mapping[str, Tensor] = read_state_dict(path)
    if not {"moments", "which", "fields"} <= set(tensors):
        raise UserError(f"'{path}' holds no encoded pictures")
    fields = parse_json(tensors["fields"].numpy().tobytes(), f"the list of captions in '{path}'")
    return Latents(tensors["moments"], tensors["which"], fields, tensors.get("names"))

"""Embeddings inside pictures, as the Stable Diffusion web UI shares them.

Two places, both holding the same fields as JSON, a tensor being ``{"TORCHTENSOR": nested lists}``:

- the PNG text field ``sd-ti-embedding``, base64;
- the picture itself, for sites that take text fields out: the JSON, compressed by zlib, is split into half bytes. The
  low halves are the low bits of a block of pixels left of the picture, the high halves those of a block right of it, a
  black column between each block and the picture. A sequence of pseudo-random numbers is added by exclusive or.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import zlib
from itertools import accumulate, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ldm.util import UserError, atomic_write

FIELD = "sd-ti-embedding"
_TENSOR = "TORCHTENSOR"
_MOST_BYTES = 1 << 24  # of JSON: 16 MiB are some 1000 vectors
_MOST_PIXELS = 1 << 24
_CARD = (256, 512)  # width, height of the picture that is drawn when an embedding is written as one
Bytes = NDArray[np.uint8]


def is_picture(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins like a PNG or a WebP picture; False when there is none."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(12)
    except OSError:
        return False
    return head.startswith(b"\x89PNG") or (head[:4] == b"RIFF" and head[8:] == b"WEBP")


def read_picture(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields of the embedding in a picture, lists turned into tensors.

    Raises:
        UserError: the picture is damaged, or there is no embedding in it.
    """
    try:
        with Image.open(path, formats=("PNG", "WEBP")) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise UserError(f"'{path}' is a picture of {image.width}x{image.height}, too large for an embedding")
            image.load()
            text = image.info.get(FIELD)
            data = _from_text(text) if isinstance(text, str) else _from_pixels(np.asarray(image.convert("RGB")))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"'{path}' is a damaged picture: {error}") from error
    if data is None:
        raise UserError(f"'{path}' is a picture without an embedding in it, or it was scaled or compressed again")
    try:
        fields = json.loads(data, object_hook=_tensors)
    except (ValueError, RuntimeError, TypeError, OverflowError) as error:
        raise UserError(f"'{path}' is damaged: the embedding in the picture cannot be read") from error
    return fields if isinstance(fields, dict) else {}


def _tensors(value: dict[str, Any]) -> Any:
    return torch.tensor(value[_TENSOR], dtype=torch.float32) if _TENSOR in value else value


def _from_text(text: str) -> bytes | None:
    if len(text) > 2 * _MOST_BYTES:
        return None
    try:
        return base64.b64decode(text)
    except (binascii.Error, ValueError):
        return None


def _from_pixels(pixels: Bytes) -> bytes | None:
    """[H, W, 3] -> the JSON hidden in its sides; None when there is none."""
    lit = pixels.min(axis=2)
    if not lit.any():
        return None
    rows, columns = np.flatnonzero(lit.max(axis=1)), np.flatnonzero(lit.max(axis=0))
    low_bits = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] & 0x0F
    black = np.flatnonzero(low_bits.sum(axis=(0, 2)) == 0)
    if len(black) < 2:
        return None
    low, high = low_bits[:, : black[0]], low_bits[:, black[-1] + 1 :]
    if low.shape != high.shape or not 0 < low.size <= _MOST_BYTES:
        return None
    noise = _noise(low.size).reshape(low.shape)
    joined = ((high ^ noise) << 4) | (low ^ noise)
    try:
        return zlib.decompressobj().decompress(joined.tobytes(), _MOST_BYTES)
    except zlib.error:
        return None


def _noise(count: int) -> Bytes:
    """Half bytes of a linear congruential generator: seed 0, then modulo 255, then the low four bits."""
    states = accumulate(repeat(0, count), lambda state, _: (1664525 * state + 1013904223) % 2**32, initial=0)
    next(states)
    noise = (np.fromiter(states, np.uint64, count) % 255).astype(np.uint8)
    return np.bitwise_and(noise, np.uint8(0x0F))


def write_picture(path: str | os.PathLike[str], fields: dict[str, Any]) -> None:
    """A PNG that carries the fields of an embedding in both places.

    Raises:
        UserError: it cannot be written.
    """
    text = json.dumps(fields, default=_lists).encode()
    low, high = _blocks(text, _CARD[1])
    card = np.full((_CARD[1], _CARD[0], 3), 0xA7, np.uint8)
    black = np.zeros((_CARD[1], 1, 3), np.uint8)
    image = Image.fromarray(np.concatenate([low, black, card, black, high], axis=1))
    info = PngInfo()
    info.add_text(FIELD, base64.b64encode(text).decode())
    with atomic_write(path) as temporary:
        image.save(temporary, "PNG", pnginfo=info)


def _lists(value: Any) -> Any:
    if not isinstance(value, Tensor):
        raise TypeError(f"a {type(value).__name__} has no place in an embedding")
    return {_TENSOR: value.detach().float().cpu().tolist()}


def _blocks(text: bytes, height: int) -> tuple[Bytes, Bytes]:
    """The two sides, [height, w, 3]; their upper bits are set, so that no pixel counts as black."""
    data = np.frombuffer(zlib.compress(text, 9), np.uint8)
    size = (len(data) // (3 * height) + 1) * 3 * height
    data = np.resize(data, size)
    noise = _noise(size)
    sides = ((half ^ noise) | 0xA0 for half in (data & 0x0F, data >> 4))
    low, high = (side.astype(np.uint8).reshape(height, -1, 3) for side in sides)
    return low, high

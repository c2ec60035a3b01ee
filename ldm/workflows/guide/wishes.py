"""Which word is wanted where, as people write it: a line, JSON, drawn pictures, or Python.

``"a red circle: 0.05 0.3 0.45 0.7; star: 0.5 0.1 0.9 0.4, 0.1 0.6 0.3 0.9; tree: mask.png; house: drawn.png#ff0000"``
says it all: boxes are left, top, right and bottom as parts of the picture, several of a word are parted by commas, and
a file is a mask, or a picture of which one colour is meant. JSON and Python have the same as ``{word: box or boxes or
file}``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageColor
from torch import Tensor

from ldm.control.regions import Box, Boxes, Mask, Region
from ldm.pictures.images import load_image
from ldm.pictures.masks import MASK_SUFFIXES, read_mask
from ldm.util import UserError, parse_json_object

SIDES = 4
NEAR = 48  # largest difference of a channel, of 255, that is still a drawn colour
EXAMPLE = "'a red circle: 0.05 0.3 0.45 0.7; star: 0.55 0.3 0.95 0.7'"
Given = str | os.PathLike[str] | Mapping[str, Any]


@dataclass(frozen=True)
class Wish:
    """A word (or several), and where in the picture it is wanted; ``said`` is how that was written."""

    word: str
    region: Region
    said: str


def read_wishes(given: Given | Sequence[Any]) -> list[Wish]:
    """What somebody asks for with ``--boxes``; each word once.

    Args:
        given: a line as above, JSON as text or in a file, or ``{word: box or boxes or mask}`` with boxes of four
            numbers, masks as files or tensors [H, W].

    Raises:
        UserError: it cannot be read, there are boxes without a word or words without a box, or a box or mask is none.
    """
    if isinstance(given, Mapping):
        parts = list(given.items())
    elif isinstance(given, str | os.PathLike):
        parts = _from_text(os.fspath(given))
    else:
        raise UserError(f"boxes are given as {EXAMPLE}, or as {{word: [left, top, right, bottom]}}")
    if not parts:
        raise UserError(f"there is no box in '{given}'; right is for example {EXAMPLE}")
    regions: dict[str, list[tuple[Region, str]]] = {}
    for word, where in parts:
        if not isinstance(word, str) or not word.strip():
            raise UserError(f"there are more boxes than words: '{_said(where)}' has none; right is {EXAMPLE}")
        regions.setdefault(word.strip(), []).append((_region(where, word.strip()), _said(where)))
    return [_together(word, found) for word, found in regions.items()]


def _from_text(text: str) -> list[tuple[str, Any]]:
    if Path(text).suffix.lower() == ".json":
        return _from_json(_read(text), f"'{text}'")
    if text.lstrip().startswith("{"):
        return _from_json(text, "the boxes")
    if ":" not in text and Path(text).suffix.lower() in MASK_SUFFIXES:
        raise UserError(
            f"'{text}' does not say which colour is which word: write 'a red circle: {text}#ff0000; star: {text}#blue'"
        )
    parts = []
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        word, colon, where = part.rpartition(":")
        if not colon:
            raise UserError(f"'{part}' is no word with a box; right is for example {EXAMPLE}")
        parts.append((word, where.strip()))
    return parts


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the boxes '{path}': {getattr(error, 'strerror', None) or error}") from error


def _from_json(text: str, what: str) -> list[tuple[str, Any]]:
    return list(parse_json_object(text, what).items())


def _region(where: Any, word: str) -> Region:
    if isinstance(where, Region):
        return Boxes((where,)) if isinstance(where, Box) else where
    if isinstance(where, Tensor):
        return Mask(where)
    if isinstance(where, os.PathLike):
        return _from_file(os.fspath(where))
    if isinstance(where, str):
        if _is_file(where):
            return _from_file(where)
        return Boxes(tuple(_box(piece.replace(",", " ").split(), word) for piece in _boxes_in(where)))
    if not isinstance(where, Sequence):
        raise UserError(f"'{_said(where)}' is no place for '{word}'; right is for example {EXAMPLE}")
    several = where if where and isinstance(where[0], Sequence) and not isinstance(where[0], str) else [where]
    return Boxes(tuple(_box(one, word) for one in several))


def _boxes_in(text: str) -> list[str]:
    """Parts with one box each: four numbers with commas between them are one as well."""
    pieces = text.split(",")
    if len(pieces) == SIDES and all(len(piece.split()) == 1 for piece in pieces):
        return [text]
    return pieces


def _box(sides: Sequence[Any], word: str) -> Box:
    try:
        numbers = [float(side) for side in sides]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != SIDES:
        said = " ".join(map(str, sides))
        raise UserError(f"'{said}' is no box for '{word}': it takes four numbers, such as {EXAMPLE}")
    return Box(*numbers)


def _is_file(text: str) -> bool:
    return Path(text.rpartition("#")[0] or text).suffix.lower() in MASK_SUFFIXES


def _from_file(text: str) -> Region:
    """A mask file, or ``picture.png#colour``: what has that colour in a drawn picture."""
    path, _, colour = text.rpartition("#")
    if not path:
        return Mask(read_mask(text))
    try:
        wanted = ImageColor.getrgb(colour if colour[:1].isalpha() and not _is_hex(colour) else f"#{colour}")[:3]
    except ValueError as error:
        raise UserError(f"'{colour}' in '{text}' is no colour; right is for example {path}#ff0000") from error
    picture = load_image(path)
    difference = np.abs(np.asarray(picture, np.int16) - np.asarray(wanted, np.int16)).max(axis=-1)
    if not (difference <= NEAR).any():
        raise UserError(f"the picture '{path}' has nothing in the colour {colour}; it has {_colours(picture)}")
    return Mask(torch.from_numpy((difference <= NEAR).astype(np.float32)))


def _is_hex(text: str) -> bool:
    return len(text) in (3, 6) and all(letter in "0123456789abcdefABCDEF" for letter in text)


def _colours(picture: Image.Image) -> str:
    """The colours that a drawn picture has most of."""
    counts = picture.quantize(8).convert("RGB").getcolors() or []
    most = [bytes(colour).hex() for _, colour in sorted(counts, reverse=True) if isinstance(colour, tuple)]
    return ", ".join(f"#{colour}" for colour in most)


def _together(word: str, found: Sequence[tuple[Region, str]]) -> Wish:
    said = ", ".join(text for _, text in found)
    boxes = [box for region, _ in found if isinstance(region, Boxes) for box in region.boxes]
    masks = [region for region, _ in found if not isinstance(region, Boxes)]
    if masks and len(found) > 1:
        raise UserError(f"'{word}' has a mask and something beside it; one mask can hold it all")
    return Wish(word, masks[0] if masks else Boxes(tuple(boxes)), said)


def _said(where: Any) -> str:
    """A place as it is written into a picture's parameters."""
    if isinstance(where, Tensor):
        return f"a mask of {where.shape[-1]}x{where.shape[-2]}"
    if isinstance(where, Boxes):
        return ", ".join(" ".join(f"{side:g}" for side in box.sides) for box in where.boxes)
    if isinstance(where, Box):
        return " ".join(f"{side:g}" for side in where.sides)
    if isinstance(where, Sequence) and not isinstance(where, str):
        several = where if where and isinstance(where[0], Sequence) else [where]
        return ", ".join(" ".join(map(str, box)) for box in several)
    return str(where)

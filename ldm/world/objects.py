"""The world's objects of real life: what they are called, and their drawings at any size."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ldm.pictures.opening import read_image
from ldm.util import UserError

Array = NDArray[np.float32]

ATLAS = Path(__file__).parent / "atlas"
CELL, COLUMNS = 128, 16  # of the atlas: pixels a drawing, drawings a row


@dataclass(frozen=True)
class Object:
    """One object: its names in each language (the most usual first), and where its drawing lies."""

    name: str  # in the code and in files
    colour: str | None  # the colour that a person would name, if there is one
    forms: dict[str, tuple[str, ...]]  # language -> nouns; an English one that takes no article begins with '+'
    counters: dict[str, tuple[str, ...]]  # 'ko' and 'zh' -> words that it is counted with
    pose: str  # what it is seen to do: a row of the poses of Korean and Chinese
    cell: int


@cache
def objects() -> dict[str, Object]:
    """All objects by name, in the atlas's order: the first 64 are recognised best when drawn small."""
    with (ATLAS / "objects.csv").open(encoding="utf-8", newline="") as file:
        return {row["name"]: _object(row, cell) for cell, row in enumerate(csv.DictReader(file))}


def _object(row: dict[str, str], cell: int) -> Object:
    forms = {language: tuple(row[language].split("/")) for language in ("en", "ko", "zh")}
    counters = {"ko": tuple(row["counter"].split("/")), "zh": tuple(row["measure"].split("/"))}
    return Object(row["name"], row["colour"] or None, forms, counters, row["pose"], cell)


def object_called(name: str) -> Object:
    """The object of that name.

    Raises:
        UserError: the world has none.
    """
    if name not in objects():
        raise UserError(f"the world has no object '{name}'; it has: {', '.join(objects())}")
    return objects()[name]


@cache
def drawing(name: str, side: int) -> Array:
    """An object's drawing, [side, side, 4] float32: colours times coverage, and coverage, all in [0, 1].

    Raises:
        UserError: the world has no such object.
    """
    row, column = divmod(object_called(name).cell, COLUMNS)
    cell = _atlas().crop((column * CELL, row * CELL, (column + 1) * CELL, (row + 1) * CELL))
    # the drawings leave 3 of 128 pixels at their edges: a little more at small sizes keeps outlines inside
    picture = Image.new("RGBa", (CELL + 6, CELL + 6))
    picture.paste(cell.convert("RGBa"), (3, 3))
    resized = picture.resize((side, side), Image.Resampling.HAMMING)
    return np.asarray(resized, np.float32) / np.float32(255)


@cache
def _atlas() -> Image.Image:
    return read_image(ATLAS / "objects.webp").convert("RGBA")

"""Pictures to learn from, with sentences beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ldm.pictures.images import save_image

Array = NDArray[np.float32]

SENTENCES = 6  # beside each picture


def write_lessons(folder: Path, lessons: Iterable[tuple[Array, Sequence[str]]]) -> None:
    """``0.png``, ``1.png``, ... of pictures [size, size, 3] in [-1, 1], and a text with the sentences beside each."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (picture, lines) in enumerate(lessons):
        save_image(Image.fromarray(((picture + 1) * 127.5).round().astype(np.uint8)), folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("".join(f"{line}\n" for line in lines))


def different(first: str, another: Callable[[], str], count: int = SENTENCES) -> list[str]:
    """Different sentences, the first one and others as they come."""
    said = [first]
    while len(said) < count:
        one = another()
        if one not in said:
            said.append(one)
    return said

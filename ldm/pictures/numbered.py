"""Names of results that are there already: pictures under running numbers, files with a number behind their name.

The rule of all commands is that no result takes the place of another one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from ldm.pictures.images import StrPath, save_image
from ldm.util import TakenError


def save_numbered(
    image: Image.Image,
    folder: StrPath,
    parameters: Mapping[str, Any] | str | None = None,
    *,
    prefix: str = "",
    digits: int = 5,
) -> Path:
    """Save a picture as PNG under the next free number, ``00000.png`` onwards; see ``save_image``.

    The finished file takes the number, which fails where another program was faster; then the next one is tried.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    while True:
        path = next_numbered_path(folder, ".png", prefix, digits)
        try:
            save_image(image, path, parameters, new=True)
        except TakenError:
            continue
        return path


def next_numbered_path(folder: StrPath, suffix: str = ".png", prefix: str = "", digits: int = 5) -> Path:
    """The path after the highest number in use, 00000.png onwards; it names no file that exists."""
    folder = Path(folder)
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.[^.]+")
    used = [int(m[1]) for p in (folder.iterdir() if folder.is_dir() else ()) if (m := pattern.fullmatch(p.name))]
    return folder / f"{prefix}{max(used, default=-1) + 1:0{digits}d}{suffix}"


def free_path(path: StrPath, is_same: Callable[[Path], bool] = lambda path: False) -> Path:
    """``path`` where nothing is there, or the same thing; else ``<stem>-2``, ``-3`` and on, the first that is so.

    Args:
        is_same: whether a file that exists is what is to be written, so that it may be written again.
    """
    path, number = Path(path), 1
    while True:
        place = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        if not place.exists() or is_same(place):
            return place
        number += 1

"""The files that a film becomes: one for each format, and a sheet of its frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ldm.pictures.film import FORMATS, Film, film_sheet, write_film
from ldm.pictures.images import save_image
from ldm.util import UserError

MOST_SHOWN = 64  # frames on a sheet, the first ones


def check_formats(formats: Sequence[str]) -> None:
    """Raises UserError for none, or one that does not exist."""
    unknown = [kind for kind in formats if kind not in FORMATS]
    if unknown or not formats:
        raise UserError(f"--formats are some of {', '.join(FORMATS)}, got {', '.join(formats) or 'none'}")


def film_files(folder: Path, name: str, formats: Sequence[str]) -> list[Path]:
    """Where a film of this name is written: ``<name>.mp4`` and so on, ``<name>_sheet.png``."""
    return [folder / (f"{name}_sheet.png" if kind == "sheet" else f"{name}.{kind}") for kind in formats]


def write_film_files(film: Film, files: Sequence[Path], about: Mapping[str, Any]) -> None:
    """Write a film into ``film_files``; the sheet has ``about`` as its parameters.

    Raises:
        UserError: the disk is full or the folder cannot be written; what was there stays, and what is written.
    """
    for file in files:
        if file.suffix == ".png":
            save_image(film_sheet(Film(film.frames[:MOST_SHOWN], film.fps)), file, about)
        else:
            write_film(film, file)

"""All results of a run on one sheet: a row for each content, a column for each style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ldm.pictures.images import make_grid, save_image
from ldm.pictures.numbered import free_path
from ldm.pictures.sizing import thumbnail
from ldm.workflows.record import has_parameters
from ldm.workflows.restyle.pairs import Pair

SIDE = 256  # of a picture on the sheet, in pixels
LIMIT = 2000  # pictures on a sheet


def contact_sheet(
    pairs: Sequence[Pair], results: Mapping[Pair, Path], path: Path, about: Mapping[str, Any], side: int = SIDE
) -> Path | None:
    """Save the sheet of those pairs that have a result: contents on the left, styles on top.

    A group of several styles has a column of its own, headed by all of them. Returns the path, or None when there is
    no result, or more than a sheet can hold.

    Args:
        about: what tells this run from others; the sheet of another one stays, and this one gets the next number.

    Raises:
        UserError: the disk is full.
    """
    made = {(pair.content, pair.styles): results[pair] for pair in pairs if pair in results}
    made = {key: picture for key, picture in made.items() if picture.is_file()}
    contents = list(dict.fromkeys(content for content, _ in made))
    groups = list(dict.fromkeys(group for _, group in made))
    if not made or (len(contents) + 1) * (len(groups) + 1) > LIMIT:
        return None
    empty = Image.new("RGB", (1, 1), "white")
    cells, labels = [empty], [""]
    for group in groups:
        cells.append(_row([thumbnail(style, side // len(group)) for style in group]))
        labels.append(" + ".join(style.stem for style in group))
    for content in contents:
        cells.append(thumbnail(content, side))
        labels.append(content.stem)
        for group in groups:
            picture = made.get((content, group))
            cells.append(empty if picture is None else thumbnail(picture, side))
            labels.append("")
    path = free_path(path, lambda sheet: has_parameters(sheet, about))
    save_image(make_grid(cells, columns=len(groups) + 1, labels=labels), path, about)
    return path


def _row(images: Sequence[Image.Image]) -> Image.Image:
    """Pictures side by side."""
    row = Image.new("RGB", (sum(i.width for i in images), max(i.height for i in images)), "white")
    left = 0
    for image in images:
        row.paste(image, (left, 0))
        left += image.width
    return row

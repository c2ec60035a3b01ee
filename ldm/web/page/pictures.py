"""Pictures between the page and the workflows: files of what was dropped or drawn, and the shipped ones at hand."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from ldm.pictures.images import load_image, save_image, to_rgb
from ldm.shipped import ROOT

if TYPE_CHECKING:  # it takes seconds, and a page that starts need not wait for it
    from torch import Tensor

PHOTOGRAPHS = ROOT / "examples" / "styleid" / "cnt"
PAINTINGS = (ROOT / "examples" / "paintings" / "train", ROOT / "examples" / "paintings" / "heldout",
             ROOT / "examples" / "styleid" / "sty")  # fmt: skip
FIRST_FRAMES = ROOT / "examples" / "film"
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
INPUTS = "inputs"  # a folder below the results
FILES = "files"  # and one of files for other programs


def photographs() -> list[Path]:
    """The shipped photographs."""
    return _pictures(PHOTOGRAPHS)


def first_frames() -> list[Path]:
    """The shipped first frames of films, which are of the small film model's world."""
    return _pictures(FIRST_FRAMES)


def paintings() -> list[Path]:
    """The shipped paintings and other styles."""
    return [path for folder in PAINTINGS for path in _pictures(folder)]


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix in SUFFIXES) if folder.is_dir() else []


def picture_and_masks(editor: Mapping[str, Any] | None) -> tuple[Image.Image | None, list[Tensor]]:
    """The picture of an editor, and a mask [H, W] for each layer with paint on it.

    Raises:
        UserError: there are too many layers.
    """
    from ldm.pictures.painted import masks_of

    if not editor or editor.get("background") is None:
        return None, []
    picture = to_rgb(editor["background"])
    return picture, masks_of(editor.get("layers") or [], (picture.height, picture.width))


def editor_value(path: str | Path) -> dict[str, Any]:
    """A picture in an editor, with nothing painted over it."""
    picture = load_image(path).convert("RGBA")
    return {"background": picture, "layers": [], "composite": picture}


def file_of(picture: Image.Image, outdir: Path, name: str = "picture") -> Path:
    """A file with the pixels of a picture; the same pixels have the same file, so that what is known of it is found.

    Raises:
        UserError: it cannot be written.
    """
    digest = hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest()[:10]
    path = outdir / INPUTS / f"{name}_{digest}.png"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        save_image(picture, path)
    return path

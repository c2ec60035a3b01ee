"""The photographs and paintings that benchmarks use when nothing else is named, by name."""

from __future__ import annotations

from pathlib import Path

from ldm.shipped import ROOT
from ldm.world.photos import photo_path, photos


def photograph(name: str) -> Path:
    """A photograph that scikit-image's wheel carries.

    Raises:
        UserError: scikit-image is not installed, or does not carry it.
    """
    return photo_path({photo.name: photo for photo in photos()}[name])


def painting(name: str) -> Path:
    """A painting of ``examples/paintings``, of those in training or of those that are held out."""
    (path,) = (ROOT / "examples" / "paintings").glob(f"*/{name}.jpg")
    return path

"""Colours by the profile that a picture carries, as sRGB: what models were trained on and screens show."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from ldm.pictures.opening import say_once

_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}  # Pillow's mode -> the ICC's name for such colours


def to_srgb(image: Image.Image, profile: bytes | None, name: str) -> Image.Image:
    """RGB of a picture in mode RGB, L or CMYK by its ICC profile (relative colorimetric, black point compensated).

    A picture whose profile is sRGB within one step of 255, or which has none, keeps its numbers.

    Args:
        name: the file's, for the warning about a profile that cannot be used.
    """
    if profile and image.mode in _SPACES:
        try:
            transform = _transform(profile, image.mode)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            say_once(f"the colour profile of '{name}' cannot be used; its colours are taken as sRGB")
            transform = None
        if transform is not None:
            return ImageCms.applyTransform(image, transform) or image  # None only where it works in place
    return image if image.mode == "RGB" else image.convert("RGB")


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile to sRGB; None where that changes nothing.

    Raises:
        PyCMSError, ValueError: the profile is damaged, or of other colours than the picture's.
    """
    own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if own.profile.xcolor_space.strip() != _SPACES[mode]:
        raise ValueError(f"a profile of {own.profile.xcolor_space} colours")
    transform = ImageCms.buildTransform(
        own,
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    if mode == "CMYK":
        return transform
    probe = _probe(mode)
    there = ImageCms.applyTransform(probe, transform) or probe
    change = np.asarray(there, np.int16) - np.asarray(probe.convert("RGB"), np.int16)
    return transform if np.abs(change).max() > 1 else None


def _probe(mode: str) -> Image.Image:
    """Colours from everywhere in a space."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    steps = np.linspace(0, 255, 18).astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1)
    return Image.fromarray(grid.reshape(18, -1, 3))

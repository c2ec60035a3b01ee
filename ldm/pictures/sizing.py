"""Pictures made ready for a model: upright, at a size that it takes, with a hash of their content."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from ldm.pictures.images import centre_crop, check_size, fit_image, image_to_tensor, load_image
from ldm.pictures.masks import fit_mask, read_mask
from ldm.util import UserError

USUAL_SIDE = 512  # of the pictures that StyleID was made for


@dataclass(frozen=True)
class Sizing:
    """How pictures get their size.

    Attributes:
        factor: what the model divides height and width by.
        longest: no side gets longer than this; the aspect is kept within half a factor.
        crop: (height, width): the middle of the picture, scaled to that size, in place of all of it.
    """

    factor: int
    longest: int = USUAL_SIDE
    crop: tuple[int, int] | None = None

    def __call__(self, image: Image.Image) -> Image.Image:
        if self.crop is not None:
            return centre_crop(image, self.crop[1], self.crop[0])
        return fit_image(image, self.factor, self.longest)


@dataclass(frozen=True)
class Picture:
    """What is known of a picture as the model gets it; its pixels are read again when they are needed.

    Attributes:
        original: (height, width) of the upright file.
        size: (height, width) at which it is used.
        sha256: of that size and the pixels: two files with the same pixels are the same picture.
    """

    path: Path
    sizing: Sizing
    original: tuple[int, int]
    size: tuple[int, int]
    sha256: str

    def image(self) -> Image.Image:
        """RGB at the size at which it is used.

        Raises:
            UserError: the file has gone, or cannot be read any more.
        """
        return self.sizing(load_image(self.path))

    def tensor(self) -> Tensor:
        """[1, 3, H, W] in [-1, 1]."""
        return image_to_tensor(self.image())[None]


@dataclass(frozen=True)
class Frame(Picture):
    """A frame of a film; its pixels are kept, for a film is not read again for one of them."""

    pixels: Image.Image = field(compare=False, repr=False)

    def image(self) -> Image.Image:
        """RGB at the size at which it is used."""
        return self.pixels


def digest(image: Image.Image) -> str:
    """What tells a picture from others: a hash of its size and pixels."""
    return hashlib.sha256(f"{image.width}x{image.height}:".encode() + image.tobytes()).hexdigest()


def look_at(path: Path, sizing: Sizing) -> Picture:
    """Read a picture once, to know its size and its content.

    Raises:
        UserError: the file is missing, unreadable or cut off.
    """
    whole = load_image(path)
    image = sizing(whole)
    return Picture(path, sizing, (whole.height, whole.width), (image.height, image.width), digest(image))


def open_mask(path: Path, content: Picture, cropped: bool) -> Tensor:
    """A mask [H, W] for a content, cut and scaled as the content was.

    It must have the size of the content's file, or the one at which the content is used.

    Raises:
        UserError: see ``ldm.pictures.masks.read_mask``; or nothing of it lies in what is kept of the content.
    """
    mask = read_mask(path, [content.original, content.size])
    try:
        return fit_mask(mask, content.size, cropped and tuple(mask.shape) == content.original)
    except UserError as error:
        raise UserError(f"'{path}': {error}") from error


def sizing_for(model: Any, height: int | None, width: int | None, crop: bool, longest: int = USUAL_SIDE) -> Sizing:
    """The sizing that options ask for: with a height, a width or ``crop`` the middle is cut out, else all is kept.

    Raises:
        UserError: the model's factor does not divide the size, or the longest side is below it.
    """
    factor = int(model.first_stage_model.factor)
    if longest < factor:
        raise UserError(f"a longest side of {longest} pixels is too small; the model needs at least {factor}")
    if height is None and width is None and not crop:
        return Sizing(factor, longest)
    if height is None and width is None:
        height = width = longest // factor * factor
    size = (height or width or 0, width or height or 0)
    check_size(size[1], size[0], factor)
    return Sizing(factor, longest, size)


def thumbnail(path: Path, side: int) -> Image.Image:
    """The picture of a file no larger than a square of ``side`` pixels, its aspect kept.

    Raises:
        UserError: it cannot be read.
    """
    image = load_image(path)
    scale = min(1.0, side / max(image.size))
    size = (max(1, math.floor(image.width * scale)), max(1, math.floor(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)

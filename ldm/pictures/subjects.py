"""Squares cut out of pictures for training: the middle, all of it, or what is around the thing that is shown.

A mask of what is to be learned goes through the same cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from ldm.pictures.images import centre_crop
from ldm.util import UserError

if TYPE_CHECKING:
    from torch import Tensor

MIDDLE, SUBJECT, WHOLE = CROPS = ("middle", "subject", "whole")
LARGEST = 1024  # pixels of a square; training makes them smaller still
LOOKED_AT = 384  # of the longer side: as much as a mask needs
RIM = 0.03  # of each side: where the thing does not reach
MARGIN = 0.15  # around the thing, as a share of its longer side


@dataclass(frozen=True)
class Square:
    """A picture as it is learned; ``mask`` [side, side] is that of the thing, where it was given or looked for."""

    picture: Image.Image
    mask: Tensor | None = None


def square_of(image: Image.Image, crop: str = MIDDLE, mask: Tensor | None = None) -> Square:
    """A picture as a square: its middle, the surroundings of the thing in it, or all of it between white bars.

    Args:
        mask: [H, W] of the thing, of the picture's size; what differs from the rim where it is needed and not given.

    Raises:
        UserError: there is no such crop, no thing is found that differs from the picture's rim, or the square has
            nothing of the mask.
    """
    if crop not in CROPS:
        raise UserError(f"there is no crop '{crop}'; there are: {', '.join(CROPS)}")
    if crop == SUBJECT:
        thing = subject_mask(image) if mask is None else mask
        box = _box_around(thing, image.size)
        cut_mask = thing[box[1] : box[3], box[0] : box[2]]
        picture = _limited(image.crop(box))
    else:
        cut = _middle if crop == MIDDLE else _whole
        picture = _limited(cut(image, "white"))
        if mask is None:
            return Square(picture)
        cut_mask = _values(cut(_grey(mask), "black"))
    from ldm.pictures.masks import fit_mask  # brings torch, which others of this file go without

    return Square(picture, fit_mask(cut_mask, picture.size[::-1]))


def _middle(image: Image.Image, outside: str) -> Image.Image:
    side = min(image.size)
    return centre_crop(image, side, side)


def _whole(image: Image.Image, outside: str) -> Image.Image:
    side = max(image.size)
    padded = Image.new(image.mode, (side, side), outside)
    padded.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return padded


def _grey(mask: Tensor) -> Image.Image:
    return Image.fromarray((mask * 255).round().byte().numpy())


def _values(grey: Image.Image) -> Tensor:
    import numpy as np
    import torch

    return torch.from_numpy(np.asarray(grey, np.float32) / 255)


def _box_around(mask: Tensor, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The square (left, top, right, bottom) around what a mask [H, W] marks, in a picture (width, height)."""
    import torch

    least = min(0.5, float(mask.max()))
    rows, columns = (torch.nonzero(mask.amax(dim=axis) >= least).flatten() for axis in (1, 0))
    return _square_box((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1), size)


def subject_mask(image: Image.Image) -> Tensor:
    """The mask [H, W] of the thing in a picture: what differs from its rim.

    Raises:
        UserError: nothing does.
    """
    import torch

    from ldm.pictures.mask_proposals import Marks, propose  # brings scikit-image, which takes a second

    scale = min(1.0, LOOKED_AT / max(image.size))
    small = image.resize((max(8, round(image.width * scale)), max(8, round(image.height * scale))))
    inset = [max(1.0, RIM * side) for side in small.size]
    box = (inset[0], inset[1], small.width - inset[0], small.height - inset[1])
    mask = propose(small, Marks(box=box))[None, None]
    return torch.nn.functional.interpolate(mask, size=(image.height, image.width), mode="bilinear")[0, 0]


def _square_box(box: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The square (left, top, right, bottom) around a box with a margin, inside of a picture (width, height)."""
    left, top, right, bottom = box
    side = min(round(max(right - left, bottom - top) * (1 + 2 * MARGIN)), *size)
    starts = [
        min(max(round((first + last - side) / 2), 0), whole - side)
        for first, last, whole in ((left, right, size[0]), (top, bottom, size[1]))
    ]
    return starts[0], starts[1], starts[0] + side, starts[1] + side


def _limited(square: Image.Image) -> Image.Image:
    side = min(square.width, LARGEST)
    return square if side == square.width else square.resize((side, side), Image.Resampling.LANCZOS)

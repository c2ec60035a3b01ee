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
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

MIDDLE, SUBJECT, WHOLE = CROPS = ("middle", "subject", "whole")
LARGEST = 1024  # pixels of a square; training makes them smaller still
LOOKED_AT = 384  # of the longer side: as much as a mask needs
RIM = 0.03  # of each side: where the thing does not reach
MARGIN = 0.15  # around the thing, as a share of its longer side
Box = tuple[int, int, int, int]  # (left, top, right, bottom)
Colour = tuple[int, int, int]
GREY: Colour = (128, 128, 128)  # the middle of what a model sees


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


def cut_out(image: Image.Image, mask: Tensor, margin: float = MARGIN, fill: Colour | None = None) -> Square:
    """The square around what a mask [H, W] marks, whole: it reaches beyond the picture where the thing is longer.

    Args:
        margin: around the thing, as a share of its longer side, as far as the picture goes.
        fill: the colour of all that the mask leaves out; None: as it is (and grey beyond the picture).

    Raises:
        UserError: a margin that cannot be, or the mask is empty.
    """
    from ldm.pictures.masks import fit_mask  # brings torch, which others of this file go without

    if not 0 <= margin <= 10:
        raise UserError(f"a margin of {margin:g} cannot be: it is a share of the thing's longer side, such as {MARGIN}")
    if not bool(mask.any()):
        raise UserError("the mask is empty: no value is above 0, so that there is nothing to cut out")
    box = _square_box(edges(mask), image.size, margin, beyond=True)
    thing = _grey(mask).crop(box)  # black beyond the picture
    kept = Image.new("L", image.size, 255).crop(box) if fill is None else thing
    square = image.crop(box)
    picture = _limited(Image.composite(square, Image.new("RGB", square.size, fill or GREY), kept))
    return Square(picture, fit_mask(_values(thing), picture.size[::-1]))


def _box_around(mask: Tensor, size: tuple[int, int]) -> Box:
    """The square around what a mask [H, W] marks, in a picture (width, height)."""
    return _square_box(edges(mask), size)


def edges(mask: Tensor) -> Box:
    """Where what a mask [H, W] marks begins and ends."""
    import torch

    least = min(0.5, float(mask.max()))
    rows, columns = (torch.nonzero(mask.amax(dim=axis) >= least).flatten() for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def subject_mask(image: Image.Image, strokes: NDArray[np.float64] | None = None) -> Tensor:
    """The mask [H, W] of the thing in a picture: what differs from its rim, or what strokes are on.

    Args:
        strokes: [H, W] with 1 where it belongs, 0 where it does not, NaN where nothing is said.

    Raises:
        UserError: nothing is found, or the strokes are of another size.
    """
    import torch

    from ldm.pictures.mask_proposals import Marks, propose  # brings scikit-image, which takes a second

    scale = min(1.0, LOOKED_AT / max(image.size))
    small = image.resize((max(8, round(image.width * scale)), max(8, round(image.height * scale))))
    inset = [max(1.0, RIM * side) for side in small.size]
    within = (inset[0], inset[1], small.width - inset[0], small.height - inset[1])
    if strokes is None:
        marks = Marks(box=within)
    else:
        Marks(strokes=strokes).check(*image.size)
        drawn = _smaller(strokes, small.size[::-1])
        marks = Marks(box=None if (drawn == 0).any() else within, strokes=drawn)
    mask = propose(small, marks)[None, None]
    return torch.nn.functional.interpolate(mask, size=(image.height, image.width), mode="bilinear")[0, 0]


def _smaller(strokes: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Strokes at (height, width), where thin ones are not lost."""
    import numpy as np
    import torch

    from ldm.pictures.masks import fit_mask

    made = np.full(size, np.nan)
    for value in (0, 1):
        drawn = torch.from_numpy((strokes == value).astype(np.float32))
        if bool(drawn.any()):
            made[fit_mask(drawn, size, most=True).numpy() > 0] = value
    return made


def _square_box(box: Box, size: tuple[int, int], margin: float = MARGIN, beyond: bool = False) -> Box:
    """The square around a box with a margin, inside of a picture (width, height).

    Args:
        beyond: where the box itself is longer than the picture is wide or high, the square is as long as the box.
    """
    left, top, right, bottom = box
    longer = max(right - left, bottom - top)
    side = min(round(longer * (1 + 2 * margin)), *size)
    side = max(side, longer) if beyond else side
    starts = [
        min(max(round((first + last - side) / 2), 0), whole - side) if side <= whole else (whole - side) // 2
        for first, last, whole in ((left, right, size[0]), (top, bottom, size[1]))
    ]
    return starts[0], starts[1], starts[0] + side, starts[1] + side


def _limited(square: Image.Image) -> Image.Image:
    side = min(square.width, LARGEST)
    return square if side == square.width else square.resize((side, side), Image.Resampling.LANCZOS)

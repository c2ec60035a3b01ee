"""A frame around a picture, for what a model paints beyond its borders."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ldm.util import UserError

MOST = 16384  # pixels on a side


@dataclass(frozen=True)
class Frame:
    """How many pixels are added on each side."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0

    def around(self, image: Image.Image) -> Image.Image:
        """An RGB picture with its frame, in which its outermost pixels go on."""
        sides = ((self.top, self.bottom), (self.left, self.right), (0, 0))
        return Image.fromarray(np.pad(np.asarray(image), sides, mode="edge"))

    def mask(self, size: tuple[int, int], inside: Tensor | None = None) -> Tensor:
        """1 in the frame of a picture of ``size`` (width, height); ``inside`` [H, W] or 0 in the picture."""
        width, height = size
        mask = torch.ones(height + self.top + self.bottom, width + self.left + self.right)
        part = torch.zeros(height, width) if inside is None else inside
        mask[self.top : self.top + height, self.left : self.left + width] = part
        return mask


def parse_frame(text: str | int | None) -> Frame | None:
    """``64`` for all sides, or some of them: ``left=64,top=32``; None for none.

    Raises:
        UserError: it is neither, or adds nothing.
    """
    if text is None:
        return None
    sides = [one.name for one in fields(Frame)]
    values = dict.fromkeys(sides, str(text).strip())
    if "=" in str(text):
        parts = [part.partition("=") for part in str(text).split(",")]
        values = {name.strip(): value.strip() for name, _, value in parts}
    known = all(name in sides and value.isascii() and value.isdigit() for name, value in values.items())
    if not known or not 0 < max(int(value) for value in values.values()) <= MOST:
        raise UserError(
            f"--outpaint '{text}' should be pixels from 1 to {MOST} for all sides, such as 64, or for some of "
            f"{', '.join(sides)}, such as left=64,top=32"
        )
    return Frame(**{name: int(value) for name, value in values.items()})

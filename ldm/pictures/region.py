"""The part of a picture around what a mask marks, to be worked on by itself."""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor

Box: TypeAlias = tuple[int, int, int, int]  # left, top, right, bottom, as Pillow has it
LEAST = 1 / 255  # of a mask; less than that is not seen


def box_around(mask: Tensor, padding: int, aspect: float) -> Box:
    """The smallest box with all that a mask marks and a margin, in the wanted aspect where the picture is large enough.

    Args:
        mask: [H, W] in [0, 1]; somewhere it is above 0.
        padding: the margin in pixels.
        aspect: width / height. The shorter side is made longer, evenly to both sides unless the border is near.
    """
    height, width = mask.shape
    marked = mask >= min(LEAST, float(mask.max()))
    (left, right), (top, bottom) = (
        _span(marked.any(dim=axis), padding, length) for axis, length in ((0, width), (1, height))
    )
    across, down = right - left, bottom - top
    left, right = _longer(left, right, round(down * aspect), width)
    top, bottom = _longer(top, bottom, round(across / aspect), height)
    return left, top, right, bottom


def _span(marked: Tensor, padding: int, length: int) -> tuple[int, int]:
    """From the first to behind the last that is marked, with the margin that there is room for."""
    places = marked.nonzero().flatten()
    return max(0, int(places[0]) - padding), min(length, int(places[-1]) + 1 + padding)


def _longer(start: int, stop: int, wanted: int, length: int) -> tuple[int, int]:
    """A span made as long as wanted, or as there is room for; a longer one stays."""
    wanted = min(max(wanted, stop - start), length)
    start = min(max(0, start - (wanted - (stop - start)) // 2), length - wanted)
    return start, start + wanted

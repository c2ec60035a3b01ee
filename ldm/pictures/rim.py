"""Where in a picture something stands, told by its rim: what has colours that are not there, beside or above it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_closing, binary_fill_holes, binary_opening, label

LOOKED_AT = 128  # of the longer side
RIM = 2  # pixels of it
FARTHER = 0.4  # CIELAB units that count as a difference for each row (or column) between a pixel and one of the rim
DEEPER = 0.1  # and for each pixel from it to the rim: less than DIFFERS in the middle of a pattern
DIFFERS = 14.0  # CIELAB units from which on a colour is another
SMALLEST = 0.01  # of the picture: what is smaller is no thing
Box = tuple[float, float, float, float]


def thing_box(image: Image.Image) -> Box | None:
    """The box (left, top, right, bottom), in picture sides, of the largest thing that stands out; None for none.

    A pixel stands out where no pixel of the rim is like it: on the left and right sides those of its row, on the upper
    and lower ones those of its column, and others the less the farther along the rim they are; all of them the less the
    farther it is from the rim. So backgrounds may be graded, patterned or have a horizon.
    """
    mask = standing_out(image)
    parts, count = label(mask)
    if not count:
        return None
    sizes = np.bincount(parts.ravel())[1:]
    if sizes.max() < SMALLEST * parts.size:
        return None
    rows, columns = np.nonzero(parts == int(np.argmax(sizes)) + 1)
    height, width = mask.shape
    return (columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height)


def standing_out(image: Image.Image) -> NDArray[np.bool_]:
    """Which pixels of a picture, made smaller, its rim has nothing like; [h, w], without specks."""
    from skimage.color import rgb2lab  # takes a second

    scale = min(1.0, LOOKED_AT / max(image.size))
    small = image.convert("RGB").resize((max(8, round(image.width * scale)), max(8, round(image.height * scale))))
    lab = rgb2lab(np.asarray(small)).astype(np.float32)
    across, down = lab, lab.transpose(1, 0, 2)
    nearest = np.minimum(from_sides(across), from_sides(down).T)
    differs = binary_closing(binary_opening(nearest > DIFFERS, iterations=2), iterations=2)
    return np.asarray(binary_fill_holes(differs))


def from_sides(lab: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far each pixel of [h, w, 3] is from the nearest of the left and right sides, in colour and place; [h, w]."""
    rows, columns = (np.arange(side, dtype=np.float32) for side in lab.shape[:2])
    apart = FARTHER * np.abs(rows[:, None] - rows)  # [h, rows of the sides]
    nearest = np.full(lab.shape[:2], np.inf, np.float32)
    for place in (*range(RIM), *range(-RIM, 0)):
        distance = np.linalg.norm(lab[:, :, None] - lab[:, place], axis=-1) + apart[:, None]
        nearest = np.minimum(nearest, distance.min(-1) + DEEPER * np.abs(columns - columns[place]))
    return nearest

"""Square crops of pictures, chosen by (seed, number).

By Pillow, whose Lanczos filter every model here was trained with: kornia has none, and its bicubic one gives pictures
of 64x64 pixels that differ by 4.0 of 255 on average, in twelve times the time. Nor by its random crops, which draw from
torch's global generator, where resuming and cached latents need the same crop at every visit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ldm.draws import uniform
from ldm.pictures.images import centre_crop, image_to_array
from ldm.util import UserError


def check_crops(size: int, scales: Sequence[float]) -> tuple[float, float]:
    """The two scales as floats.

    Raises:
        UserError: a size or scales that `random_crop` cannot take.
    """
    if size < 1 or len(scales) != 2 or not 0 < scales[0] <= scales[1] <= 1:
        raise UserError(f"crops need size >= 1 and 0 < smallest <= largest scale <= 1, got {size} and {list(scales)}")
    return float(scales[0]), float(scales[1])


def random_crop(
    image: Image.Image, size: int, seed: int, number: int, scales: tuple[float, float], flip: bool
) -> NDArray[np.float32]:
    """A square part of a picture, resized; the same for the same seed and number.

    Args:
        size: side of the result in pixels.
        scales: smallest and largest side of the part, as shares of the picture's shorter side (drawn evenly in the
            logarithm). A part smaller than `size` is never taken unless the picture itself is.
        flip: mirror half of the numbers.

    Returns:
        [size, size, 3] float32 in [-1, 1].
    """
    shorter = min(image.size)
    smallest, largest = (max(scale * shorter, min(size, shorter)) for scale in scales)
    zoom, left, top, mirror = (float(uniform(seed, number, name)[0]) for name in ("zoom", "left", "top", "mirror"))
    side = smallest * (largest / smallest) ** zoom
    x, y = left * (image.width - side), top * (image.height - side)
    part = image.resize((size, size), Image.Resampling.LANCZOS, box=(x, y, x + side, y + side))
    return image_to_array(ImageOps.mirror(part) if flip and mirror < 0.5 else part)


def whole_crop(image: Image.Image, size: int) -> NDArray[np.float32]:
    """The largest square in the middle, resized: [size, size, 3] float32 in [-1, 1]."""
    return image_to_array(centre_crop(image, size, size))

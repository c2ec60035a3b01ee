"""Sizes of one area and different aspects, so that pictures learn at nearly their own (Podell et al. 2023, 2.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from PIL import Image

MOST = 4  # times as long as wide, as in the paper's table 2
Size = tuple[int, int]  # height, width


@runtime_checkable
class Bucketed(Protocol):
    """A data set whose items have several sizes; a batch can be of one only."""

    @property
    def buckets(self) -> Sequence[int] | None:
        """A number for the size of each item; None: all have one size."""
        ...


def bucket_sizes(side: int, step: int) -> list[Size]:
    """(height, width) in multiples of ``step``, each as large as fits into the area of a square of ``side``.

    From four times as wide as high to the reverse; 1024 in steps of 64 gives 512x2048, ..., 1024x1024, ..., 2048x512.
    """
    heights = range(step, 2 * side + step, step)
    sizes = [(height, side * side // height // step * step) for height in heights]
    return [(height, width) for height, width in sizes if width and max(height, width) <= MOST * min(height, width)]


def nearest_bucket(size: Size, buckets: Sequence[Size]) -> int:
    """The place of the bucket whose aspect is nearest to that of a picture (height, width)."""
    aspect = math.log(size[0] / size[1])
    return min(range(len(buckets)), key=lambda place: abs(math.log(buckets[place][0] / buckets[place][1]) - aspect))


def cover(size: Size, bucket: Size) -> tuple[Size, Size]:
    """How large a picture (height, width) becomes to cover a bucket, and (top, left) of its middle in that."""
    scale = max(bucket[0] / size[0], bucket[1] / size[1])
    height, width = (max(least, round(side * scale)) for side, least in zip(size, bucket, strict=True))
    return (height, width), ((height - bucket[0]) // 2, (width - bucket[1]) // 2)


def fitted(image: Image.Image, bucket: Size, resample: Image.Resampling) -> Image.Image:
    """The middle of a picture that is made to cover a bucket."""
    (height, width), (top, left) = cover((image.height, image.width), bucket)
    return image.resize((width, height), resample).crop((left, top, left + bucket[1], top + bucket[0]))

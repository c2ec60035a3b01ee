"""A distance of two pictures in its two halves, so that a picture which is compared often is seen once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Distance:
    """What is seen of each picture, and how far two such are from each other.

    Attributes:
        see: a picture, in the shape and range that the distance's maker says, to whatever ``compare`` takes.
        compare: two of these to a number.
    """

    see: Callable[[Tensor], Any]
    compare: Callable[[Any, Any], float]

    def __call__(self, a: Tensor, b: Tensor) -> float:
        return self.compare(self.see(a), self.see(b))

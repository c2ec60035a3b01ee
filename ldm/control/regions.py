"""Where in a picture something is wanted: boxes and masks, and the cells of a feature map that they take."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.util import UserError

Grid = tuple[int, int]


class Region(ABC):
    """A part of a picture."""

    @abstractmethod
    def cells(self, grid: Grid) -> Tensor:
        """[height, width] float32, 1 for the cells of a feature map that belong to it; at least one does."""

    @abstractmethod
    def is_small(self, grid: Grid) -> bool:
        """Whether a cell stands for something that would take none."""


@dataclass(frozen=True)
class Box(Region):
    """A rectangle, its sides as parts of the picture's width and height, from the upper left corner.

    Raises:
        UserError: it does not lie in the picture, or there is nothing in it.
    """

    left: float
    top: float
    right: float
    bottom: float

    def __post_init__(self) -> None:
        sides = self.sides
        said = f"the box {' '.join(f'{side:g}' for side in sides)}"
        if not all(math.isfinite(side) and 0 <= side <= 1 for side in sides):
            raise UserError(f"{said} does not lie in the picture: left, top, right and bottom are parts from 0 to 1")
        if self.left >= self.right or self.top >= self.bottom:
            raise UserError(
                f"{said} is empty or inverted: it should be left, top, right, bottom, such as 0.1 0.2 0.5 0.8"
            )

    @property
    def sides(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom."""
        return self.left, self.top, self.right, self.bottom

    def cells(self, grid: Grid) -> Tensor:
        """The cells between its sides, cut down to whole ones; the cell of its middle where there would be none."""
        height, width = grid
        rows, columns = self._span(self.top, self.bottom, height), self._span(self.left, self.right, width)
        mask = torch.zeros(grid)
        mask[rows, columns] = 1
        return mask

    def is_small(self, grid: Grid) -> bool:
        height, width = grid
        across = int(self.left * width) == int(self.right * width)
        return across or int(self.top * height) == int(self.bottom * height)

    @staticmethod
    def _span(start: float, end: float, cells: int) -> slice:
        first, last = int(start * cells), int(end * cells)
        if first == last:
            first = min(int((start + end) / 2 * cells), cells - 1)
            last = first + 1
        return slice(first, last)


@dataclass(frozen=True)
class Boxes(Region):
    """Several boxes together."""

    boxes: tuple[Box, ...]

    def cells(self, grid: Grid) -> Tensor:
        return torch.stack([box.cells(grid) for box in self.boxes]).amax(dim=0)

    def is_small(self, grid: Grid) -> bool:
        return any(box.is_small(grid) for box in self.boxes)


@dataclass(frozen=True)
class Mask(Region):
    """What a mask [H, W] of a picture marks: the cells of which it covers at least a half, or the most of any.

    Raises:
        UserError: it marks nothing.
    """

    values: Tensor = field(compare=False)

    def __post_init__(self) -> None:
        if self.values.dim() != 2 or not bool((self.values > 0).any()):
            raise UserError("a mask is [height, width] and marks at least one pixel")

    def cells(self, grid: Grid) -> Tensor:
        shares = self._shares(grid)
        return (shares >= min(0.5, float(shares.max()))).float()

    def is_small(self, grid: Grid) -> bool:
        return float(self._shares(grid).max()) < 0.5

    def _shares(self, grid: Grid) -> Tensor:
        return F.adaptive_avg_pool2d(self.values[None].float(), grid)[0]

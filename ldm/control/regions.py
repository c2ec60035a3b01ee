"""Where in a picture something is wanted: boxes and masks, and the cells of a feature map that they take."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.util import UserError

Grid = tuple[int, int]
FINE = (128, 128)  # cells in which a mask's rim is looked for


class Region(ABC):
    """A part of a picture."""

    @abstractmethod
    def cells(self, grid: Grid) -> Tensor:
        """[height, width] float32, 1 for the cells of a feature map that belong to it; at least one does."""

    @abstractmethod
    def is_small(self, grid: Grid) -> bool:
        """Whether a cell stands for something that would take none."""

    @abstractmethod
    def distances(self, grid: Grid) -> Tensor:
        """[height, width] float32: how far the middle of each cell is from its rim, in cells; below 0 inside.

        Where it ends at the picture's edge, it goes on beyond: there is no rim.
        """

    @property
    @abstractmethod
    def parts(self) -> tuple[Region, ...]:
        """What of it lies apart: its boxes; a mask is one."""

    @property
    @abstractmethod
    def frame(self) -> Box:
        """The box around all of it."""


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

    def distances(self, grid: Grid) -> Tensor:
        height, width = grid
        down = self._beyond(self.top, self.bottom, height)[:, None]
        across = self._beyond(self.left, self.right, width)[None]
        outside = torch.hypot(down.clamp(min=0), across.clamp(min=0))
        return outside + torch.maximum(down, across).clamp(max=0)

    @property
    def parts(self) -> tuple[Region, ...]:
        return (self,)

    @property
    def frame(self) -> Box:
        return self

    @property
    def middle(self) -> tuple[float, float]:
        """Row and column of its middle, as parts of the picture's height and width."""
        return (self.top + self.bottom) / 2, (self.left + self.right) / 2

    @staticmethod
    def _beyond(start: float, end: float, cells: int) -> Tensor:
        """[cells]: how far the middle of each cell is beyond the nearer of two sides; below 0 between them."""
        middles = torch.arange(cells) + 0.5
        first, last = start * cells if start > 0 else -cells, end * cells if end < 1 else 2 * cells
        return torch.maximum(first - middles, middles - last)

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

    def distances(self, grid: Grid) -> Tensor:
        return torch.stack([box.distances(grid) for box in self.boxes]).amin(dim=0)

    @property
    def parts(self) -> tuple[Region, ...]:
        return self.boxes

    @property
    def frame(self) -> Box:
        left, top, right, bottom = zip(*(box.sides for box in self.boxes), strict=True)
        return Box(min(left), min(top), max(right), max(bottom))


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

    def distances(self, grid: Grid) -> Tensor:
        from scipy.ndimage import distance_transform_edt  # slow to import, and few pictures have a mask like this

        inside = self.cells(FINE).numpy() > 0
        if inside.all():
            return torch.full(grid, -float(max(grid)))
        unit = [cells / fine for cells, fine in zip(grid, FINE, strict=True)]
        away = distance_transform_edt(~inside, unit)
        within = distance_transform_edt(np.pad(inside, 1, mode="edge"), unit)[1:-1, 1:-1]
        return F.adaptive_avg_pool2d(torch.from_numpy(away - within).float()[None], grid)[0]

    @property
    def parts(self) -> tuple[Region, ...]:
        return (self,)

    @property
    def frame(self) -> Box:
        rows, columns = (found.tolist() for found in self.cells(FINE).nonzero(as_tuple=True))
        height, width = FINE
        return Box(min(columns) / width, min(rows) / height, (max(columns) + 1) / width, (max(rows) + 1) / height)

    def _shares(self, grid: Grid) -> Tensor:
        return F.adaptive_avg_pool2d(self.values[None].float(), grid)[0]

"""Where a mode takes features from: a store filled earlier, or other rows of the same batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ldm.control.seam import Call
from ldm.util import UserError


class FeatureSource(Protocol):
    """Features of one picture, or of one picture for each row that a mode acts on."""

    def read(self, call: Call, name: str, own: Tensor) -> Tensor:
        """The feature ``name`` ("q", "k", "v", "residual") for this call, in precision and place of ``own``.

        ``own`` [B ...] is what the whole batch has under that name; the result has one row, or one for each row that
        the mode acts on. The number of positions may be another.
        """


@dataclass(frozen=True)
class Rows:
    """The rows ``start`` to ``stop`` of the batch itself, both counted from 0, the second not included."""

    start: int
    stop: int

    def read(self, call: Call, name: str, own: Tensor) -> Tensor:
        """Those rows of ``own`` [B, ...].

        Raises:
            UserError: the batch is smaller.
        """
        if not 0 <= self.start < self.stop <= own.shape[0]:
            raise UserError(f"rows {self.start} to {self.stop} were wanted of a batch of {own.shape[0]}")
        return own[self.start : self.stop]

    def write(self, own: Tensor, changed: Tensor) -> Tensor:
        """``own`` [B, ...] with those rows replaced by ``changed`` [stop - start, ...]."""
        return torch.cat([own[: self.start], changed, own[self.stop :]])

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Joined:
    """Several sources one below the other: one picture each, for a batch of as many rows."""

    sources: Sequence[FeatureSource]

    def read(self, call: Call, name: str, own: Tensor) -> Tensor:
        return torch.cat([source.read(call, name, own) for source in self.sources])


def for_rows(feature: Tensor, rows: int, site: str) -> Tensor:
    """A feature [1 or rows ...] with ``rows`` rows, not copied.

    Raises:
        UserError: it has another number.
    """
    if feature.shape[0] == rows:
        return feature
    if feature.shape[0] != 1:
        raise UserError(f"features of {feature.shape[0]} pictures were given for {rows} rows at '{site}'")
    return feature.expand(rows, *feature.shape[1:])

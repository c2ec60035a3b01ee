"""What modes that change some rows of a batch at some timesteps have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm.control.seam import Call
from ldm.control.sources import FeatureSource, Rows, for_rows


@dataclass(frozen=True)
class ActingRows:
    """q, k and v of a whole batch at one call, and the rows that a mode acts on.

    Shapes: q [B h n d], k and v [B h m d].
    """

    q: Tensor
    k: Tensor
    v: Tensor
    rows: Rows
    call: Call
    scale: float

    def own(self, name: str) -> Tensor:
        """What the acting rows have themselves of "q", "k" or "v": [rows h n d]."""
        return self.rows.read(self.call, name, self._whole(name))

    def of(self, source: FeatureSource | None, name: str) -> Tensor:
        """What a source has for the acting rows, [rows h n d]; without a source their own.

        Raises:
            UserError: the source has features of several pictures, but not of as many as there are rows.
        """
        if source is None:
            return self.own(name)
        return for_rows(source.read(self.call, name, self._whole(name)), len(self.rows), self.call.site)

    def _whole(self, name: str) -> Tensor:
        return {"q": self.q, "k": self.k, "v": self.v}[name]


class RowMode(ABC):
    """Changes the attention of some rows at some timesteps; everything else is left to the site's inner function."""

    def __init__(self, timesteps: Collection[float] | None, rows: Rows | None) -> None:
        self.timesteps = None if timesteps is None else frozenset(timesteps)
        self.rows = rows

    @abstractmethod
    def attend(self, batch: ActingRows) -> Tensor:
        """The output [rows h n d] of the acting rows."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, call: Call, scale: float | None = None) -> Tensor:
        if self.timesteps is not None and call.timestep not in self.timesteps:
            return call.inner(q, k, v, scale=scale)
        rows = self.rows or Rows(0, q.shape[0])
        factor = q.shape[-1] ** -0.5 if scale is None else scale
        out = self.attend(ActingRows(q, k, v, rows, call, factor))

        def plain(part: slice) -> Tensor:
            q_part = q[part]
            return call.inner(q_part, k[part], v[part], scale=scale) if len(q_part) else out[:0]

        if len(rows) == q.shape[0]:
            return out
        return torch.cat([plain(slice(0, rows.start)), out, plain(slice(rows.stop, None))])

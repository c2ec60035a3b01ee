"""Batches of different kinds in one training: each from one data set, each data set with its own batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Dataset, default_collate

from ldm.building.kinds import DATA
from ldm.data.reading import read_items
from ldm.draws import choose, uniform
from ldm.util import ConfigError, UserError, instantiate_from_config


@dataclass(frozen=True)
class Part:
    """One data set of a mixture, how many of its items make a batch, and its share of the batches."""

    data: Any
    batch_size: int
    share: float


class Mixture(Dataset[dict[str, Any]]):
    """Whole batches, so that pictures of several sizes can be trained on; every item is a function of (seed, index).

    A loader takes one item at a time and adds no dimension to it.

    Args:
        parts: nodes ``{share, batch_size, data: {target, params}}``; the shares count relative to each other.
        length: how many batches.
        seed: another seed, other batches.
    """

    def __init__(self, parts: Sequence[Mapping[str, Any]], length: int, seed: int = 0) -> None:
        """Raises ConfigError: there is no part, or one is not complete; UserError: a part or the mixture is empty."""
        if not parts:
            raise ConfigError("a mixture needs at least one part")
        self.parts = [_part(i, node) for i, node in enumerate(parts)]
        if length < 1:
            raise UserError(f"a mixture needs length >= 1, got {length}")
        self.length, self.seed = length, seed
        shares = [part.share for part in self.parts]
        self._limits = np.cumsum(shares) / sum(shares)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.length:
            raise IndexError(f"batch {index} of a mixture of {self.length}")
        which = int(np.searchsorted(self._limits, uniform(self.seed, index, "part")[0], side="right"))
        part = self.parts[which]
        places = np.arange(part.batch_size) + index * part.batch_size
        numbers = [int(i) for i in choose(self.seed, places, "item", len(part.data))]
        return default_collate(read_items(part.data, numbers))


def _part(index: int, node: Mapping[str, Any]) -> Part:
    missing = {"share", "batch_size", "data"} - set(node)
    if missing:
        raise ConfigError(f"part {index} of a mixture needs share, batch_size and data; it has no {sorted(missing)[0]}")
    if node["batch_size"] < 1 or node["share"] <= 0:
        raise ConfigError(f"part {index} of a mixture needs batch_size >= 1 and share > 0")
    data = instantiate_from_config(node["data"], DATA)
    if len(data) == 0:
        raise UserError(f"part {index} of a mixture, '{node['data']['target']}', is empty")
    return Part(data, int(node["batch_size"]), float(node["share"]))

"""Reading several items of a data set: in one call where it can, one after the other elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class BatchReader(Protocol):
    """A data set that reads many items in one call, as torch's loader asks for them."""

    def __getitems__(self, indices: Sequence[int]) -> list[Any]: ...


def read_items(data: Any, indices: Sequence[int]) -> list[Any]:
    """The items of a map-style data set at ``indices``."""
    return data.__getitems__(indices) if isinstance(data, BatchReader) else [data[i] for i in indices]

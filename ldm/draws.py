"""Random numbers that are a function of (seed, index, name): any item of a data set on its own, or many at once."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def number_of(index: int, length: int) -> int:
    """The number 0..length-1 of an item of a data set, which may be counted from its end.

    Raises:
        IndexError: there is no such item.
    """
    if not -length <= index < length:
        raise IndexError(f"item {index} of a data set of {length}")
    return int(index) % length


def uniform(seed: int, indices: int | Sequence[int] | NDArray[np.integer], name: str) -> NDArray[np.float64]:
    """One number in [0, 1) for each index, independent between names (splitmix64 finaliser over a mixed counter)."""
    key = _mix(np.array([seed & 0xFFFFFFFF], np.uint64) * _GOLDEN + np.uint64(zlib.crc32(name.encode())))
    counter = np.atleast_1d(np.asarray(indices, np.int64)).astype(np.uint64)
    with np.errstate(over="ignore"):
        bits = _mix(_mix(counter * _GOLDEN + key) + key)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def choose(seed: int, indices: int | Sequence[int] | NDArray[np.integer], name: str, n: int) -> NDArray[np.int64]:
    """One of 0..n-1 for each index."""
    return (uniform(seed, indices, name) * n).astype(np.int64)


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))

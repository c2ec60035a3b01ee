"""The pictures of a request, batch by batch, and the seed of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Batch:
    """Pictures that are made together: their prompts and seeds."""

    prompts: list[str]
    seeds: list[int]


def batches(row: Sequence[str], size: int, passes: int, seed: int, same_seeds: bool = False) -> Iterator[Batch]:
    """Pictures of these prompts, ``passes`` times, ``size`` of them in a batch.

    Args:
        seed: of the first picture; each further one has the next.
        same_seeds: every batch begins with the first seed.
    """
    made = 0
    for _ in range(passes):
        for start in range(0, len(row), size):
            part = list(row[start : start + size])
            first = seed + (0 if same_seeds else made)
            yield Batch(part, list(range(first, first + len(part))))
            made += len(part)

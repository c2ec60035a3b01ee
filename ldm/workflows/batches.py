"""The pictures of a request, batch by batch, and the seed of each."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ldm.util import UserError

log = logging.getLogger(__name__)

DRAW = -1  # stands for any seed
DRAWN_BELOW = 2**32  # drawn seeds are short enough to be typed again
LAST_SEED = 2**64 - 1  # that a generator takes


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


def settled_seed(seed: int, pictures: int = 1) -> int:
    """The seed itself, or one that is drawn (and said) for -1.

    Raises:
        UserError: some of so many pictures, each of which has the next seed, would have one that no generator takes.
    """
    if seed == DRAW:
        seed = secrets.randbelow(DRAWN_BELOW)
        log.info("the seed is %d", seed)
    if not 0 <= seed <= LAST_SEED - (pictures - 1):
        raise UserError(f"a seed must lie between 0 and {LAST_SEED - (pictures - 1)}, or be -1 (any), got {seed}")
    return seed

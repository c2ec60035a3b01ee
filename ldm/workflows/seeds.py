"""The seed of a request: given, or drawn."""

from __future__ import annotations

import logging
import secrets

from ldm.util import UserError

log = logging.getLogger(__name__)

DRAW = -1  # stands for any seed
DRAWN_BELOW = 2**32  # drawn seeds are short enough to be typed again
LAST_SEED = 2**64 - 1  # that a generator takes


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

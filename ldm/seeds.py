"""Seeds as they are asked for: a number, or -1 for any."""

from __future__ import annotations

import logging
import secrets

from ldm.util import UserError

log = logging.getLogger(__name__)

DRAW = -1  # stands for any seed
DRAWN_BELOW = 2**32  # drawn seeds are short enough to be typed again
LAST_SEED = 2**64 - 1  # that a generator takes


def settled_seed(seed: int, pictures: int = 1, last: int = LAST_SEED) -> int:
    """The seed itself, or one that is drawn (and said) for -1.

    Args:
        pictures: how many are made, each of which has the next seed.
        last: the largest one that can be used.

    Raises:
        UserError: it, or that of the last picture, is one that no generator takes.
    """
    if seed == DRAW:
        seed = secrets.randbelow(DRAWN_BELOW)
        log.info("the seed is %d", seed)
    if not 0 <= seed <= last - (pictures - 1):
        raise UserError(f"a seed must lie between 0 and {last - (pictures - 1)}, or be -1 (any), got {seed}")
    return seed

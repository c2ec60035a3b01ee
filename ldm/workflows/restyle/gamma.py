"""The content's share of the query, gamma, from the first step of sampling to the last."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ldm.models.diffusion.loop import Level
from ldm.util import UserError

COSINE = (0.75, 0.375)  # from where to where the schedule called "cosine" goes, if it does not say
POINTS = 64  # at which a cosine is written down


def read_schedule(text: str) -> tuple[float, ...]:
    """The gammas of ``0.9,0.5``, of ``cosine``, or of ``cosine:0.75,0.375``: half a cosine from one to the other.

    Raises:
        UserError: it is none of these.
    """
    name, _, numbers = text.partition(":") if text.startswith("cosine") else ("", "", text)
    try:
        values = tuple(float(value) for value in numbers.split(",")) if numbers else COSINE
    except ValueError:
        values = ()
    if not values or name not in ("", "cosine") or (name and len(values) != 2):
        raise UserError(f"--gamma_schedule takes numbers like 0.9,0.5, or cosine:0.75,0.375, got '{text}'")
    return cosine(*values) if name else values


def cosine(first: float, last: float) -> tuple[float, ...]:
    """Half a cosine from one gamma to another, at evenly spread points."""
    shares = [(1 + math.cos(math.pi * i / (POINTS - 1))) / 2 for i in range(POINTS)]
    return tuple(last + (first - last) * share for share in shares)


def gamma_by_level(values: Sequence[float], levels: Sequence[Level]) -> dict[int, float]:
    """A gamma for each level's index: the values spread evenly in the order of sampling, straight in between.

    Raises:
        UserError: no value at all.
    """
    if not values:
        raise UserError("a schedule of gamma needs at least one value, such as 0.9,0.5")
    places = np.linspace(0, len(values) - 1, len(levels))
    gammas = np.interp(places, np.arange(len(values)), np.asarray(values, dtype=np.float64))
    return {level.index: float(gamma) for level, gamma in zip(levels, gammas, strict=True)}

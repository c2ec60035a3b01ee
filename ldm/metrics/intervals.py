"""How far a number would be from itself with other pictures of the same kind."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

LEVEL = 0.95
DRAWS = 2000
PARTS = 20
NORMAL = 1.959964  # deviations on either side that hold 95 % of a normal distribution

Interval = tuple[float, float]


def bootstrap(values: Tensor, seed: int = 0) -> Interval:
    """The percentile interval (95 %) of the mean of values [N] under drawing with replacement (Efron 1979)."""
    generator = torch.Generator().manual_seed(seed)
    count = len(values)
    means = torch.stack(
        [values[torch.randint(count, (count,), generator=generator)].double().mean() for _ in range(DRAWS)]
    )
    tail = (1 - LEVEL) / 2
    low, high = torch.quantile(means, torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high


def leave_out(count: int, seed: int = 0) -> list[Tensor]:
    """The indices [n] that are left of ``count`` when each of up to 20 parts is left out."""
    parts = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tensor_split(min(PARTS, count))
    return [torch.cat([part for other, part in enumerate(parts) if other != left]) for left in range(len(parts))]


def jackknife(value: float, without: Sequence[float]) -> Interval:
    """``value`` with 1.96 deviations on either side (Tukey 1958).

    For what is computed of a whole set: drawn with replacement, a set has fewer different pictures, and its FID grows.

    Args:
        without: the same number with each part left out; of fewer than 3 nothing is known, and both ends are NaN.
    """
    if len(without) < 3:
        return float("nan"), float("nan")
    numbers = torch.tensor(without, dtype=torch.float64)
    deviation = float(((len(without) - 1) * numbers.var(correction=0)).sqrt())
    return value - NORMAL * deviation, value + NORMAL * deviation

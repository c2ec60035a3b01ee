"""Logits written out, for what the fused kernel does not tell: maps, and how much attention a source would draw."""

from __future__ import annotations

import torch
from torch import Tensor

MOST_LOGITS = 2**22  # held at a time by ``peak_and_log_sum``: 16 MB


def logits(q: Tensor, k: Tensor, scale: float | None = None) -> Tensor:
    """scale q k^T, [b h n m] float32 whatever the precision around; ``scale`` is d^-1/2 when not given."""
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    with torch.autocast(q.device.type, enabled=False):
        return (q.float() * factor) @ k.float().transpose(-1, -2)


def peak_and_log_sum(q: Tensor, k: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The largest logit of each query, and the logarithm of the sum of their exponentials; [b h n] float32 each.

    Queries go in strips, so that memory does not grow with their number.
    """
    b, h, n, _ = q.shape
    rows = max(1, MOST_LOGITS // (b * h * k.shape[2]))
    peaks, sums = q.new_empty(b, h, n, dtype=torch.float32), q.new_empty(b, h, n, dtype=torch.float32)
    for start in range(0, n, rows):
        strip = logits(q[:, :, start : start + rows], k, scale)
        peaks[:, :, start : start + rows] = strip.amax(dim=-1)
        sums[:, :, start : start + rows] = strip.logsumexp(dim=-1)
    return peaks, sums

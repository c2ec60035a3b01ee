"""The forward process: noise added to what is clean (Ho et al. 2020, equation 4)."""

from __future__ import annotations

from torch import Tensor


def q_sample(x_start: Tensor, t: Tensor, noise: Tensor, signal: Tensor, spread: Tensor) -> Tensor:
    """x_t = signal_t x_0 + spread_t noise, of the shape of ``x_start`` [B, ...].

    Args:
        t: entries [B] of the tables.
        signal, spread: sqrt(acp) and sqrt(1 - acp), tables [T] where ``x_start`` is.
    """
    return extract(signal, t, x_start) * x_start + extract(spread, t, x_start) * noise


def extract(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """Entries ``t`` [B] of a table, shaped [B, 1, ...] to multiply ``like`` [B, ...]."""
    return table[t].reshape(-1, *[1] * (like.dim() - 1))

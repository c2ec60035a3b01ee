"""Attention in bfloat16 on a CPU, where two matrix products and a softmax are quicker than the fused kernel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MIN_KEYS = 256  # with fewer, the fused kernel is as quick
ROWS = 512  # queries in one strip
LOGITS = 2**22  # of one strip, 8 MB: heads are taken together up to this, to start threads less often
GUESSES = 64  # keys that the largest logit of a query is guessed from
WIDTH = 16  # the products are quickest when the width of a head is a multiple of this


def attention_in_strips(q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None) -> Tensor:
    """softmax(scale q k^T) v for a strip of queries at a time; ``scale`` is d^-1/2 when not given.

    Logits are held in bfloat16, whose error grows with their size. An additional column in q and k therefore subtracts
    from all logits of a query about the largest one, found among some of its keys: softmax does not see it, and the
    logits that matter are near zero, where they are exact. Columns of zeros widen heads to what the kernels like.

    Shapes: q [b h n d], k [b h m d], v [b h m d] -> [b h n d].
    """
    b, h, n, d = q.shape
    m = k.shape[2]
    width = -(-(d + 1) // 8) * 8
    queries = q.new_zeros(b, h, n, width)
    torch.mul(q, d**-0.5 if scale is None else scale, out=queries[..., :d])
    keys = k.new_zeros(b, h, m, width)
    keys[..., :d] = k
    keys[..., d] = 1
    values = F.pad(v, (0, -v.shape[-1] % WIDTH)).flatten(0, 1)
    queries, keys = queries.flatten(0, 1), keys.flatten(0, 1)

    # an odd step, so that the sample runs through all columns of a picture
    sample = keys[:, :: m // GUESSES | 1]
    queries[..., d] = -torch.bmm(queries, sample.transpose(1, 2)).amax(dim=-1)

    out = values.new_empty(b * h, n, values.shape[-1])
    rows = min(n, ROWS)
    heads = max(1, LOGITS // (rows * m))
    room = q.new_empty(heads, rows, m)
    for i in range(0, b * h, heads):
        some_keys, some_values = keys[i : i + heads].transpose(1, 2), values[i : i + heads]
        for j in range(0, n, rows):
            some = queries[i : i + heads, j : j + rows]
            weights = room[: some.shape[0], : some.shape[1]]
            torch.bmm(some, some_keys, out=weights)
            torch.softmax(weights, dim=-1, out=weights)
            torch.bmm(weights, some_values, out=out[i : i + heads, j : j + rows])
    return out.unflatten(0, (b, h))[..., : v.shape[-1]]

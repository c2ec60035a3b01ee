"""Anderson mixing: what a fixed-point iteration tries next, of all that it has tried."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

RIDGE = 1e-8  # of each difference's square: differences that are nearly parallel get no large weights


def next_try(tried: Sequence[Tensor], images: Sequence[Tensor]) -> Tensor:
    """The next point [B, ...] to try for x = g(x), of the points tried so far and their images under g, likewise.

    Anderson 1965, in the form of Walker & Ni 2011 (equation 2.1) without damping: the images are added up with weights
    whose sum is 1 and with which what is left, g(x) - x, adds up to the least. Each row has its own weights, so that
    none depends on what else is in the batch. After one try it is the image itself.
    """
    if len(tried) == 1:
        return images[-1]
    left = [(image - point).flatten(1) for point, image in zip(tried, images, strict=True)]
    change = torch.stack([left[-1] - one for one in left[:-1]], dim=1).double()  # [B, tries before, N]
    gram = change @ change.transpose(1, 2)
    gram = gram + torch.diag_embed(RIDGE * gram.diagonal(dim1=1, dim2=2) + torch.finfo(gram.dtype).tiny)
    weights = torch.linalg.solve(gram, change @ left[-1].double()[..., None])  # [B, tries before, 1]
    moved = torch.stack([(images[-1] - one).flatten(1) for one in images[:-1]], dim=1)
    step = (weights.to(moved.dtype) * moved).sum(dim=1)
    return images[-1] - step.view_as(images[-1])

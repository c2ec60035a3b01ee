"""Scores of CLIP's vectors, of pictures and of texts."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of each row of [N, D] with that of another: [N]; 0 where one is 0."""
    return F.cosine_similarity(a, b, dim=-1)


def clip_score(images: Tensor, texts: Tensor) -> Tensor:
    """max(100 cos, 0) of each pair [N, D]: [N], as torchmetrics has it for one pair."""
    return (100 * cosine(images, texts)).clamp_min(0)


def mean_clip_score(images: Tensor, texts: Tensor) -> Tensor:
    """max(mean 100 cos, 0) over pairs [N, D], as torchmetrics has it for many: negative pairs count."""
    return (100 * cosine(images, texts)).mean().clamp_min(0)


def clip_s(images: Tensor, texts: Tensor) -> Tensor:
    """CLIP-S of each pair [N, D] (Hessel et al. 2021, equation 1): 2.5 max(cos, 0)."""
    return 2.5 * cosine(images, texts).clamp_min(0)


def directional(images: Tensor, edited: Tensor, texts: Tensor, edited_texts: Tensor) -> Tensor:
    """Whether pictures changed as their texts did (Gal et al. 2022, equation 3), [N, D] each: [N]."""
    there, said = (
        F.normalize(after, dim=-1) - F.normalize(before, dim=-1)
        for before, after in ((images, edited), (texts, edited_texts))
    )
    return cosine(there, said)

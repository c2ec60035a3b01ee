"""Distances of two pictures of one size through a network: LPIPS, AlexNet's features, CFSD.

Pictures are [1, 3, H, W] in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
import torchmetrics
from torch import Tensor

from ldm.checkpoint import read_state_dict
from ldm.metrics.distance import Distance
from ldm.metrics.towers import Tower, normalised
from ldm.util import UserError

SHIFT = (-0.03, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.45)
NORM_EPS = 1e-10
BLOCK = 1024  # rows of a self-similarity that are in memory at one time
HEADS = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models"


def lpips_heads(name: str) -> list[Tensor]:
    """The linear heads 0.1 of LPIPS for "alex" or "vgg": [1, C, 1, 1] a tap; torchmetrics carries their files."""
    weights = read_state_dict(HEADS / f"{name}.pth")
    return [weights[f"lin{number}.model.1.weight"] for number in range(len(weights))]


def lpips_input(pictures: Tensor) -> Tensor:
    """Pictures in [0, 1] as LPIPS feeds its networks."""
    shift, scale = (torch.tensor(values, device=pictures.device).view(3, 1, 1) for values in (SHIFT, SCALE))
    return (2 * pictures - 1 - shift) / scale


def lpips_layers(a: Sequence[Tensor], b: Sequence[Tensor], heads: Sequence[Tensor]) -> list[Tensor]:
    """What each tap adds to LPIPS, [B, 1, 1, 1] (Zhang et al. 2018, equation 1, with learned weights)."""
    return [
        ((_unit(x) - _unit(y)).square() * head.to(x)).sum(dim=1, keepdim=True).mean(dim=(2, 3), keepdim=True)
        for x, y, head in zip(a, b, heads, strict=True)
    ]


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(dim=1, keepdim=True).sqrt() + NORM_EPS)


def lpips(tower: Tower, heads: Sequence[Tensor]) -> Distance:
    """LPIPS through a network with its heads."""
    return Distance(
        lambda picture: tower(lpips_input(picture)),
        lambda a, b: float(torch.stack(lpips_layers(a, b, heads)).sum()),
    )


def feature_distance(tower: Tower) -> Distance:
    """The mean squared difference of features, the mean over taps (ArtFID's "alexnet")."""
    return Distance(
        lambda picture: tower(normalised(picture)),
        lambda a, b: float(torch.stack([F.mse_loss(x, y) for x, y in zip(a, b, strict=True)]).mean()),
    )


def log_self_similarity(features: Tensor, rows: slice = slice(None)) -> Tensor:
    """log softmax over all positions of each position's products with them: [rows, positions].

    ``features`` [C, positions] are divided by C first (Chung et al. 2024, supplement).
    """
    scaled = features / features.shape[0]
    return (scaled[:, rows].T @ scaled).log_softmax(dim=-1)


def cfsd(stylised: Tensor, content: Tensor, block: int = BLOCK) -> Tensor:
    """Content feature structural distance of features [1, C, h, w] of two pictures of one size; a number.

    The sum over positions of the Kullback-Leibler divergence of the content's self-similarity from the result's. It is
    no mean, so it grows with the picture. Rows are taken ``block`` at a time: for 512 pixels all would take 1 GB.

    Raises:
        UserError: pictures of two sizes, or several.
    """
    if stylised.shape != content.shape or len(content) != 1:
        raise UserError("CFSD compares two pictures of one size")
    q, p = stylised[0].flatten(1), content[0].flatten(1)
    total = torch.zeros((), dtype=torch.float64)
    for first in range(0, p.shape[1], block):
        rows = slice(first, first + block)
        log_p, log_q = log_self_similarity(p, rows), log_self_similarity(q, rows)
        shares, others = log_p.exp(), log_q.exp()
        # both sum to 1, but for rounding, which would be per cents of the divergence of pictures that are much alike
        total += (shares * (log_p - log_q) - shares + others).sum(dtype=torch.float64).cpu()
    return total.float()


def cfsd_through(tower: Tower) -> Distance:
    """CFSD of a stylised picture to its content, at their own size."""
    return Distance(lambda picture: tower(normalised(picture))[0], lambda a, b: float(cfsd(a, b)))

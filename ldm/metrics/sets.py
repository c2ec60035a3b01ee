"""Distances of two sets of pictures, given as features [N, D] of a network: FID, KID, precision and recall, ArtFID."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.image.kid import poly_mmd

FIRST_POINT = 5000  # pictures, from which ArtFID's line to infinitely many is drawn
POINTS = 15


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """FID of features [N, D] and [M, D] (Heusel et al. 2017), covariances with N - 1, in float64.

    tr (S1 S2)^(1/2) is the sum of the singular values of X1 X2^T / ((N - 1)(M - 1))^(1/2) for centred X: their squares
    are the eigenvalues of S1 S2 that are not 0. So there is no root of a matrix that may fail, nor a D x D matrix
    where there are fewer pictures than features. 0 for fewer than 2 pictures in both sets' spread.
    """
    a, b = a.double(), b.double()
    mean = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    x, y = _spread(a), _spread(b)
    root = torch.linalg.svdvals(x @ y.T).sum()
    return max(float(mean + x.square().sum() + y.square().sum() - 2 * root), 0.0)


def _spread(features: Tensor) -> Tensor:
    """A matrix X [R, D] with X^T X the covariance of features [N, D], R at most D."""
    count = len(features)
    x = (features - features.mean(dim=0)) / max(count - 1, 1) ** 0.5
    return torch.linalg.qr(x, mode="r").R if count > x.shape[1] else x


def frechet_infinity(a: Tensor, b: Tensor, seed: int = 0) -> float:
    """FID for infinitely many pictures (Chong & Forsyth 2020), as ArtFID has it, of two sets [N, D] of one length.

    A line over 1 / n through FIDs of 15 subsets from 5000 pictures to all; with no more than 5000 it is the FID.
    """
    count = len(a)
    if count <= FIRST_POINT:
        return frechet_distance(a, b)
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.linspace(FIRST_POINT, count, POINTS, dtype=torch.float64).long()
    found = []
    for size in sizes.tolist():
        some = torch.randperm(count, generator=generator)[:size]
        found.append(frechet_distance(a[some], b[some]))
    design = torch.stack([torch.ones(POINTS, dtype=torch.float64), 1 / sizes.double()], dim=1)
    return float(torch.linalg.lstsq(design, torch.tensor(found, dtype=torch.float64)[:, None]).solution[0])


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """KID of features [N, D] twice (Binkowski et al. 2018, equation 4), unbiased, all rows in one subset."""
    count = min(len(a), len(b))
    return float(poly_mmd(a[:count].double(), b[:count].double()))


def precision_recall(made: Tensor, reference: Tensor, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019) of features [N, D] and [M, D]."""
    return _inside(made.double(), reference.double(), k), _inside(reference.double(), made.double(), k)


def _inside(points: Tensor, centres: Tensor, k: int) -> float:
    """The share of points in a ball around some centre, whose radius reaches its k-th neighbour among the centres."""
    among = torch.cdist(centres, centres).fill_diagonal_(float("inf"))
    radii = among.kthvalue(k, dim=1).values
    return float((torch.cdist(points, centres) <= radii).any(dim=1).double().mean())


def art_fid(content_distance: float, style_distance: float) -> float:
    """ArtFID (Wright & Ommer 2022, equation 1): LPIPS to the contents, FID of the art network to the styles."""
    return (1 + content_distance) * (1 + style_distance)

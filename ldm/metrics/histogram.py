"""The colour histogram of HistoGAN (Afifi et al. 2021) and the distance of two, which StyleID calls colour matching."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.metrics.distance import Distance

EPS = 1e-6
BINS = 64
RANGE = 3.0  # of u and v, on either side of 0
SIGMA = 0.02
LARGEST = 256  # pixels of a side; larger pictures become squares of this

Kernel = Literal["inverse-quadratic", "RBF", "thresholding"]


def rgb_uv_histogram(pictures: Tensor, kernel: Kernel = "inverse-quadratic") -> Tensor:
    """The RGB-uv histograms [B, 3, 64, 64] of pictures [B, 3, H, W] in [0, 1], each with the sum 1.

    A plane for each channel: over the logarithms of its ratios to the other two, weighted by brightness
    (equations 1 to 3).
    """
    pictures = pictures.clamp(0, 1)
    if max(pictures.shape[-2:]) > LARGEST:
        pictures = F.interpolate(pictures, (LARGEST, LARGEST), mode="bilinear", align_corners=False)
    return torch.stack([_of_one(picture.flatten(1), kernel) for picture in pictures])


def _of_one(colours: Tensor, kernel: Kernel) -> Tensor:
    """[3, 64, 64] of the colours [3, N] of one picture."""
    brightness = (colours.square().sum(dim=0) + EPS).sqrt()
    red, green, blue = (colours + EPS).log()
    red_green, red_blue, green_blue = (
        _nearness(one - other, kernel) for one, other in ((red, green), (red, blue), (green, blue))
    )
    # the other way round a ratio's logarithm has the other sign, so its bins come in the other order
    ways = [(red_green, red_blue), (red_green.flip(1), green_blue), (red_blue.flip(1), green_blue.flip(1))]
    planes = [(u * brightness[:, None]).T @ v for u, v in ways]
    histogram = torch.stack(planes)
    return histogram / (histogram.sum() + EPS)


def _nearness(values: Tensor, kernel: Kernel) -> Tensor:
    """How much of each value [N] each bin gets: [N, 64], float32."""
    centres = torch.linspace(-RANGE, RANGE, BINS, dtype=torch.float64, device=values.device)
    distance = values[:, None] - centres
    if kernel == "thresholding":
        return (distance.abs() <= RANGE / BINS).float()
    squared = (distance / SIGMA).square()
    return (squared.neg().exp() if kernel == "RBF" else 1 / (1 + squared)).float()


def hellinger(a: Tensor, b: Tensor) -> Tensor:
    """The Hellinger distance [B] of histograms [B, 3, 64, 64]: 0 the same, at most 1."""
    return (a.sqrt() - b.sqrt()).flatten(1).norm(dim=1) / math.sqrt(2)


HISTOGRAM = Distance(rgb_uv_histogram, lambda a, b: float(hellinger(a, b)))  # of pictures [1, 3, H, W] in [0, 1]

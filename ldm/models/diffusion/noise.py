"""Noise that belongs to a picture: drawn on the CPU, one generator per image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class ImageNoise:
    """Standard normal noise, seeded image by image, so that a picture does not depend on its batch or the device."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self.generators = [torch.Generator("cpu").manual_seed(int(seed)) for seed in seeds]

    def draw(self, shape_of_one: Sequence[int]) -> Tensor:
        """The next draw of every image, float32 [B, *shape_of_one] on the CPU."""
        shape = tuple(shape_of_one)
        return torch.stack([torch.randn(shape, generator=g, device="cpu") for g in self.generators])

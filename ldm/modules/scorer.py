"""A small network that says what is on a rendered picture: the judge of text-to-image quality."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.checkpoint import load_weights


class AttributeScorer(nn.Module):
    """Four strided convolutions, then one linear classifier for each attribute over the whole 4x4 map.

    Args:
        classes: attribute -> how many values it has.
        widths: channels after each convolution; each halves the picture.
        size: width and height of the pictures it was trained on; others are resized.
        ckpt_path: weights; none leaves them random.
    """

    def __init__(
        self,
        classes: Mapping[str, int],
        widths: tuple[int, ...] = (32, 64, 128, 128),
        size: int = 64,
        ckpt_path: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        self.size = size
        layers: list[nn.Module] = []
        channels = 3
        for width in widths:
            layers += [nn.Conv2d(channels, width, 4, 2, 1, bias=False), nn.BatchNorm2d(width), nn.SiLU()]
            channels = width
        self.trunk = nn.Sequential(*layers, nn.Flatten())
        features = channels * (size >> len(widths)) ** 2
        self.heads = nn.ModuleDict({name: nn.Linear(features, count) for name, count in classes.items()})
        if ckpt_path is not None:
            load_weights(self, ckpt_path, strict=True)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits of each attribute.

        Args:
            images: [B, 3, H, W] in [-1, 1].

        Returns:
            attribute -> [B, its number of values].
        """
        if images.shape[-2:] != (self.size, self.size):
            images = F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)
        features = self.trunk(images)
        return {name: head(features) for name, head in self.heads.items()}

    @torch.no_grad()
    def judge(self, images: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """The most likely value of each attribute and the probability that the network gives it, both [B]."""
        found = {}
        for name, logits in self(images).items():
            probability, value = logits.float().softmax(-1).max(-1)
            found[name] = (value, probability)
        return found

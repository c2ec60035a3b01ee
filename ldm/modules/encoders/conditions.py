"""Encoders of conditions that are neither text nor photographs: class labels and maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.modules.encoders.base import AbstractEncoder
from ldm.modules.encoders.needs import Need
from ldm.util import ConfigError, UserError

RESIZE_METHODS = ("nearest", "linear", "bilinear", "trilinear", "bicubic", "area")


class ClassEmbedder(AbstractEncoder):
    """Class labels -> context [B, 1, embed_dim].

    Args:
        embed_dim: D.
        n_classes: how many labels there are.
        key: where a batch has them.
        ucg_rate: how often, in training, a label becomes the last one, which then stands for "no class".
    """

    def __init__(self, embed_dim: int, n_classes: int = 1000, key: str = "class", ucg_rate: float = 0.0) -> None:
        super().__init__()
        self.key = key
        self.n_classes = n_classes
        self.takes = Need("class_label", f"classes [B], numbers from 0 to {n_classes - 1}")
        self.ucg_rate = ucg_rate
        self.embedding = nn.Embedding(n_classes, embed_dim)

    def forward(self, batch: Mapping[str, Any] | Tensor, key: str | None = None) -> Tensor:
        """A batch that holds labels [B] under ``key``, or the labels themselves.

        Raises:
            UserError: the batch has no such key, or a label is not one of the classes.
        """
        labels = torch.as_tensor(self.labels(batch, key)).long().reshape(-1, 1)
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < self.n_classes:
            raise UserError(
                f"class labels must lie between 0 and {self.n_classes - 1}, got {labels.flatten().tolist()}"
            )
        if self.training and self.ucg_rate > 0:
            dropped = torch.rand(labels.shape, device="cpu") < self.ucg_rate
            labels = labels.masked_fill(dropped.to(labels.device), self.n_classes - 1)
        return self.embedding(labels.to(self.embedding.weight.device))

    @property
    def empty_class(self) -> int:
        """The class that stands for none in guidance: the last one, as ``ucg_rate`` has it."""
        return self.n_classes - 1

    def labels(self, batch: Mapping[str, Any] | Tensor, key: str | None = None) -> Any:
        """The labels [B] of a batch, or what is no batch as it is.

        Raises:
            UserError: the batch has no such key.
        """
        key = key or self.key
        if not isinstance(batch, Mapping):
            return batch
        if key not in batch:
            raise UserError(f"a batch needs class labels under '{key}', it has: {', '.join(batch)}")
        return batch[key]


class SpatialRescaler(AbstractEncoder):
    """A map [B, C, H, W], such as a segmentation, resized ``n_stages`` times and, if asked, with fewer channels.

    Args:
        method: how ``torch.nn.functional.interpolate`` resizes.
        multiplier: the factor of each stage.
        out_channels: channels after a learned 1x1 convolution; None for none.

    Raises:
        ConfigError: an unknown ``method``, or a negative ``n_stages``.
    """

    takes = Need("map", "maps [B, C, H, W], such as a segmentation, one channel a class")

    def __init__(
        self,
        n_stages: int = 1,
        method: str = "bilinear",
        multiplier: float = 0.5,
        in_channels: int = 3,
        out_channels: int | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__()
        if n_stages < 0 or method not in RESIZE_METHODS:
            raise ConfigError(
                f"SpatialRescaler takes n_stages of at least 0 and one of the methods {', '.join(RESIZE_METHODS)}, "
                f"got {n_stages} and '{method}'"
            )
        self.n_stages = n_stages
        self.method = method
        self.multiplier = multiplier
        self.channel_mapper = None if out_channels is None else nn.Conv2d(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.n_stages):
            x = F.interpolate(x, scale_factor=self.multiplier, mode=self.method)
        return x if self.channel_mapper is None else self.channel_mapper(x)

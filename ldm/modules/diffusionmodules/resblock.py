"""Residual blocks of the UNet and the changes of resolution between them."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from ldm.modules.diffusionmodules.util import checkpointed, group_norm, zero_module


class Upsample(nn.Module):
    """Double height and width by nearest neighbours, then optionally a 3x3 convolution.

    Shapes: [B, channels, H, W] -> [B, out_channels, 2H, 2W].
    """

    def __init__(self, channels: int, use_conv: bool, out_channels: int | None = None, padding: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels or channels, 3, padding=padding) if use_conv else None

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return x if self.conv is None else self.conv(x)


class Downsample(nn.Module):
    """Halve height and width: a strided 3x3 convolution padded on every side, or the mean of 2x2.

    Shapes: [B, channels, H, W] -> [B, out_channels, H', W']; the convolution rounds odd sizes up, the mean down.
    """

    def __init__(self, channels: int, use_conv: bool, out_channels: int | None = None, padding: int = 1) -> None:
        super().__init__()
        self.op: nn.Module = (
            nn.Conv2d(channels, out_channels or channels, 3, stride=2, padding=padding)
            if use_conv
            else nn.AvgPool2d(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class ResBlock(nn.Module):
    """Two normalised 3x3 convolutions with the timestep between them, added to the input.

    Shapes: x [B, channels, H, W], emb [B, emb_channels] -> [B, out_channels, H', W'], where H' is H, 2H or H / 2.
    """

    takes: ClassVar[tuple[str, ...]] = ("emb",)  # what a row of layers gives it besides x

    def __init__(
        self,
        channels: int,
        emb_channels: int,
        dropout: float,
        out_channels: int | None = None,
        use_conv: bool = False,  # a 3x3 convolution on the skip instead of 1x1
        use_scale_shift_norm: bool = False,  # the timestep scales and shifts the second norm, instead of being added
        use_checkpoint: bool = False,
        up: bool = False,
        down: bool = False,
    ) -> None:
        super().__init__()
        out_channels = out_channels or channels
        self.use_scale_shift_norm = use_scale_shift_norm
        self.use_checkpoint = use_checkpoint
        self.in_layers = nn.Sequential(group_norm(channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1))
        self.resample: nn.Module | None = None
        if up:
            self.resample = Upsample(channels, use_conv=False)
        elif down:
            self.resample = Downsample(channels, use_conv=False)
        emb_width = 2 * out_channels if use_scale_shift_norm else out_channels
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, emb_width))
        self.out_layers = nn.Sequential(
            group_norm(out_channels),
            nn.SiLU(),
            nn.Dropout(dropout),
            zero_module(nn.Conv2d(out_channels, out_channels, 3, padding=1)),
        )
        self.skip_connection: nn.Module = nn.Identity()
        if out_channels != channels:
            kernel = 3 if use_conv else 1
            self.skip_connection = nn.Conv2d(channels, out_channels, kernel, padding=kernel // 2)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return checkpointed(self._forward, x, emb, enabled=self.use_checkpoint and self.training)

    def _forward(self, x: Tensor, emb: Tensor) -> Tensor:
        norm, activation, conv = self.in_layers
        h = activation(norm(x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = conv(h)

        emb_out = self.emb_layers(emb)[:, :, None, None]
        if self.use_scale_shift_norm:
            scale, shift = emb_out.chunk(2, dim=1)
            h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        else:
            h = self.out_layers(h + emb_out)
        return self.skip_connection(x) + self.residual(h)

    def residual(self, h: Tensor) -> Tensor:
        """What the block adds to its skip, [B, C, H, W]: a place for hooks that change it; here as it is."""
        return h

"""Building blocks of the convolutional autoencoder; names of submodules are state-dict keys of released files."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from ldm.modules.attention import scaled_dot_product_attention
from ldm.modules.cpu.group_norm import GroupNorm
from ldm.modules.diffusionmodules.clips import Clips
from ldm.util import ConfigError

GROUPS = 32
EPS = 1e-6
ATTENTION_TYPES = ("vanilla", "vanilla-xformers", "memory-efficient", "none")


def group_norm(channels: int) -> GroupNorm:
    """The autoencoder's normalisation: 32 groups, eps 1e-6.

    Raises:
        ConfigError: ``channels`` is not a multiple of 32.
    """
    if channels % GROUPS:
        raise ConfigError(f"an autoencoder layer of {channels} channels is not possible: ch * ch_mult must be "
                          f"a multiple of {GROUPS}")
    return GroupNorm(GROUPS, channels, eps=EPS)


def conv3(channels_in: int, channels_out: int) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size."""
    return nn.Conv2d(channels_in, channels_out, 3, padding=1)


class ResnetBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), with a 1x1 convolution on the shortcut where the width changes."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels)
        self.conv1 = conv3(in_channels, out_channels)
        self.norm2 = group_norm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = conv3(out_channels, out_channels)
        if in_channels != out_channels:
            self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1)
        self.changes_width = in_channels != out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B,C,H,W] -> [B,C',H,W]."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return (self.nin_shortcut(x) if self.changes_width else x) + h


class AttnBlock(nn.Module):
    """Self-attention over all positions with one head as wide as the layer, added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B,C,H,W] -> [B,C,H,W]."""
        return x + self.proj_out(self.looked_up(x))

    def looked_up(self, x: torch.Tensor) -> torch.Tensor:
        """What the positions of a map say to each other, [B,C,H,W] -> [B,C,H,W], before the last convolution."""
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2).transpose(1, 2)[:, None] for layer in (self.q, self.k, self.v))  # b 1 n c
        return scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2).unflatten(2, x.shape[2:])


def attention_block(channels: int, kind: str = "vanilla") -> nn.Module:
    """The attention that ``attn_type`` names; every softmax kind is one fused kernel here, ``none`` is the identity.

    Raises:
        ConfigError: an unknown kind.
    """
    if kind not in ATTENTION_TYPES:
        raise ConfigError(f"attn_type '{kind}' is not known; it can be one of: {', '.join(ATTENTION_TYPES)}")
    return nn.Identity() if kind == "none" else AttnBlock(channels)


class Downsample(nn.Module):
    """Halves height and width: a stride-2 convolution padded at the right and bottom only, or a 2x2 mean."""

    def __init__(self, channels: int, with_conv: bool = True) -> None:
        super().__init__()
        self.with_conv = with_conv
        if with_conv:
            self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B,C,H,W] -> [B,C,H/2,W/2]."""
        return self.conv(F.pad(x, (0, 1, 0, 1))) if self.with_conv else F.avg_pool2d(x, 2)


class Upsample(nn.Module):
    """Doubles height and width: every pixel repeated, then a 3x3 convolution."""

    def __init__(self, channels: int, with_conv: bool = True) -> None:
        super().__init__()
        self.with_conv = with_conv
        if with_conv:
            self.conv = conv3(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B,C,H,W] -> [B,C,2H,2W]."""
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return self.conv(x) if self.with_conv else x


@dataclass(frozen=True)
class BlockKinds:
    """The blocks that an autoencoder is made of; one of films has others at these places.

    A block that ``takes`` "clips" is given how rows make films, besides the map [B,C,H,W].
    """

    residual: Callable[[int, int, float], nn.Module] = ResnetBlock  # channels in and out, dropout
    attention: Callable[[int, str], nn.Module] = attention_block  # channels, kind


PICTURES = BlockKinds()


def run_block(block: nn.Module, x: torch.Tensor, clips: Clips | None) -> torch.Tensor:
    """[B,C,H,W] -> [B,C',H,W], with the clips for a block that takes them."""
    return block(x, clips) if "clips" in getattr(block, "takes", ()) else block(x)


class Middle(nn.Module):
    """The blocks at the lowest resolution: residual, attention, residual."""

    def __init__(self, channels: int, dropout: float, attn_type: str, kinds: BlockKinds = PICTURES) -> None:
        super().__init__()
        self.block_1 = kinds.residual(channels, channels, dropout)
        self.attn_1 = kinds.attention(channels, attn_type)
        self.block_2 = kinds.residual(channels, channels, dropout)

    def forward(self, x: torch.Tensor, clips: Clips | None = None) -> torch.Tensor:
        """[B,C,H,W] -> [B,C,H,W]."""
        for block in (self.block_1, self.attn_1, self.block_2):
            x = run_block(block, x, clips)
        return x


@dataclass(frozen=True)
class StageOptions:
    """What a stage of the encoder and the one of the decoder at the same resolution have in common."""

    dropout: float
    attn_type: str
    attends: bool  # an attention after each residual block
    with_conv: bool  # resample with a convolution
    kinds: BlockKinds = PICTURES


class Stage(nn.Module):
    """Residual blocks at one resolution, each followed by attention where the resolution asks for it."""

    def __init__(self, in_channels: int, out_channels: int, count: int, options: StageOptions) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * count
        self.block = nn.ModuleList(
            options.kinds.residual(before, after, options.dropout) for before, after in itertools.pairwise(widths)
        )
        attentions = count if options.attends else 0
        self.attn = nn.ModuleList(options.kinds.attention(out_channels, options.attn_type) for _ in range(attentions))

    def forward(self, x: torch.Tensor, clips: Clips | None = None) -> torch.Tensor:
        """[B,C,H,W] -> [B,C',H,W], before any resampling."""
        for i, block in enumerate(self.block):
            x = run_block(block, x, clips)
            if self.attn:
                x = run_block(self.attn[i], x, clips)
        return x


class DownStage(Stage):
    """A stage of the encoder, followed by ``downsample`` unless it is the last."""

    def __init__(self, in_channels: int, out_channels: int, count: int, resample: bool, options: StageOptions) -> None:
        super().__init__(in_channels, out_channels, count, options)
        self.resample = resample
        if resample:
            self.downsample = Downsample(out_channels, options.with_conv)

    def forward(self, x: torch.Tensor, clips: Clips | None = None) -> torch.Tensor:
        """[B,C,H,W] -> [B,C',H/2,W/2], or [B,C',H,W] for the last stage."""
        x = super().forward(x, clips)
        return self.downsample(x) if self.resample else x


class UpStage(Stage):
    """A stage of the decoder, followed by ``upsample`` unless it is the one of full resolution."""

    def __init__(self, in_channels: int, out_channels: int, count: int, resample: bool, options: StageOptions) -> None:
        super().__init__(in_channels, out_channels, count, options)
        self.resample = resample
        if resample:
            self.upsample = Upsample(out_channels, options.with_conv)

    def forward(self, x: torch.Tensor, clips: Clips | None = None) -> torch.Tensor:
        """[B,C,H,W] -> [B,C',2H,2W], or [B,C',H,W] at full resolution."""
        x = super().forward(x, clips)
        return self.upsample(x) if self.resample else x

"""Encoder and decoder of the autoencoders, as the ``ddconfig`` of a configuration describes them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ldm.modules.diffusionmodules.clips import Clips
from ldm.modules.diffusionmodules.patch_transform import COLOURS, PatchDecoder, PatchEncoder
from ldm.modules.diffusionmodules.vae_blocks import (
    PICTURES,
    AttnBlock,
    BlockKinds,
    Downsample,
    DownStage,
    Middle,
    ResnetBlock,
    StageOptions,
    Upsample,
    UpStage,
    conv3,
    group_norm,
    run_block,
)
from ldm.util import ConfigError

__all__ = ["AttnBlock", "AutoencoderShape", "Decoder", "Downsample", "Encoder", "ResnetBlock", "Upsample"]


@dataclass(frozen=True)
class AutoencoderShape:
    """What a ``ddconfig`` says; encoder and decoder read the same one."""

    ch: int  # base width
    out_ch: int  # channels of the decoded picture
    num_res_blocks: int  # residual blocks a stage (one more in the decoder)
    in_channels: int  # channels of the picture
    resolution: int  # height that attn_resolutions refer to; any size can be encoded
    z_channels: int  # channels of the latent before quant_conv
    ch_mult: Sequence[int] = (1, 2, 4, 8)  # width of each stage in units of ch; each stage but the last halves the size
    attn_resolutions: Sequence[int] = ()  # stages at these resolutions have attention
    dropout: float = 0.0
    resamp_with_conv: bool = True  # False: resample by mean and repetition only
    double_z: bool = True  # the encoder gives mean and log-variance
    attn_type: str = "vanilla"  # 'none' leaves every attention out
    give_pre_end: bool = False  # decode() stops before the last normalisation
    tanh_out: bool = False  # squash the decoded picture into [-1,1]
    patch_transform: bool = False  # add a linear patch path that starts as a cosine transform
    patch_logvar: float = -6.0  # log-variance of the posterior that the patch path starts with
    patch_overlap: int = 0  # pixels that neighbouring patches share to each side; half of the factor leaves no seams

    @classmethod
    def from_ddconfig(cls, ddconfig: dict[str, Any]) -> AutoencoderShape:
        """Raises ConfigError naming a key that is unknown or missing, or values that do not fit each other."""
        known = {field.name: field for field in fields(cls)}
        unknown = [key for key in ddconfig if key not in known]
        if unknown:
            raise ConfigError(f"ddconfig has no key '{unknown[0]}'; it takes: {', '.join(known)}")
        missing = [name for name, field in known.items() if field.default is MISSING and name not in ddconfig]
        if missing:
            raise ConfigError(f"ddconfig needs the key '{missing[0]}', which the configuration does not give")
        shape = cls(**ddconfig)
        if shape.patch_transform and not shape.in_channels == shape.out_ch == COLOURS:
            raise ConfigError(f"patch_transform needs in_channels and out_ch to be {COLOURS}, "
                              f"got {shape.in_channels} and {shape.out_ch}")
        if not 0 <= shape.patch_overlap <= shape.factor // 2:
            raise ConfigError(f"patch_overlap is at most half of the factor {shape.factor}, got {shape.patch_overlap}")
        return shape

    @property
    def factor(self) -> int:
        """How many times smaller than the picture a latent is."""
        return 2 ** (len(self.ch_mult) - 1)

    @property
    def widths(self) -> list[int]:
        """Channels of each stage, full resolution first."""
        return [self.ch * mult for mult in self.ch_mult]

    def stage_options(self, level: int, kinds: BlockKinds = PICTURES) -> StageOptions:
        """The options of the stage ``level``; 0 is full resolution."""
        attends = self.resolution // 2**level in self.attn_resolutions
        return StageOptions(self.dropout, self.attn_type, attends, self.resamp_with_conv, kinds)


def _channels_last(x: torch.Tensor) -> torch.Tensor:
    """The layout that convolutions on every device are fastest in; the layers keep it from here on."""
    return x.contiguous(memory_format=torch.channels_last)


class Encoder(nn.Module):
    """Picture to latent (``double_z: false``) or to mean and log-variance of a latent (``double_z: true``)."""

    def __init__(self, **ddconfig: Any) -> None:
        """Takes the keys of ``AutoencoderShape``.

        Raises:
            ConfigError: a key is unknown, missing, or does not fit the others.
        """
        super().__init__()
        shape = AutoencoderShape.from_ddconfig(ddconfig)
        widths = shape.widths
        outputs = shape.z_channels * (2 if shape.double_z else 1)
        last = len(widths) - 1
        self.conv_in = conv3(shape.in_channels, shape.ch)
        self.down = nn.ModuleList(
            DownStage(before, after, shape.num_res_blocks, level < last, shape.stage_options(level))
            for level, (before, after) in enumerate(itertools.pairwise([shape.ch, *widths]))
        )
        self.mid = Middle(widths[-1], shape.dropout, shape.attn_type)
        self.norm_out = group_norm(widths[-1])
        self.conv_out = conv3(widths[-1], outputs)
        self.patch: PatchEncoder | None = None
        if shape.patch_transform:
            log_variance = shape.patch_logvar if shape.double_z else None
            self.patch = PatchEncoder(shape.z_channels, shape.factor, log_variance, shape.patch_overlap)
            _zero(self.conv_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B,3,H,W] in [-1,1] -> [B, z_channels (times 2 with double_z), H/f, W/f]."""
        x = _channels_last(x)
        h = self.conv_in(x)
        for stage in self.down:
            h = stage(h)
        h = self.conv_out(F.silu(self.norm_out(self.mid(h))))
        return h if self.patch is None else h + self.patch(x)


class Decoder(nn.Module):
    """Latent to picture."""

    def __init__(self, kinds: BlockKinds = PICTURES, **ddconfig: Any) -> None:
        """Takes the keys of ``AutoencoderShape``; ``kinds`` are a subclass's blocks.

        Raises:
            ConfigError: a key is unknown, missing, or does not fit the others.
        """
        super().__init__()
        shape = AutoencoderShape.from_ddconfig(ddconfig)
        widths = shape.widths
        self.give_pre_end = shape.give_pre_end
        self.tanh_out = shape.tanh_out
        self.conv_in = conv3(shape.z_channels, widths[-1])
        self.mid = Middle(widths[-1], shape.dropout, shape.attn_type, kinds)
        self.up = nn.ModuleList(
            UpStage(before, after, shape.num_res_blocks + 1, level > 0, shape.stage_options(level, kinds))
            for level, (before, after) in enumerate(zip([*widths[1:], widths[-1]], widths, strict=True))
        )
        self.norm_out = group_norm(widths[0])
        self.conv_out = conv3(widths[0], shape.out_ch)
        self.patch: PatchDecoder | None = None
        if shape.patch_transform:
            self.patch = PatchDecoder(shape.z_channels, shape.factor, shape.patch_overlap)
            _zero(self.conv_out)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """[B,z_channels,h,w] -> [B,out_ch,h*f,w*f], about [-1,1]."""
        return self.run(z)

    def run(self, z: torch.Tensor, clips: Clips | None = None) -> torch.Tensor:
        """What ``forward`` does, for rows that may be frames of clips."""
        z = _channels_last(z)
        h = self.mid(self.conv_in(z), clips)
        for stage in reversed(self.up):
            h = stage(h, clips)
        if self.give_pre_end:
            return h
        h = run_block(self.conv_out, F.silu(self.norm_out(h)), clips)
        if self.patch is not None:
            h = h + self.patch(z)
        return torch.tanh(h) if self.tanh_out else h


def _zero(layer: nn.Conv2d) -> None:
    """Let a layer begin silent, so that what it is added to decides at first."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)

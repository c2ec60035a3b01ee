"""The UNet of films: temporal layers behind the spatial ones of every residual block and transformer.

And, where it is asked for, one that copies what the network is given.

Sources: Blattmann et al. 2023, "Align your Latents" and "Stable Video Diffusion".
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.flat_options import flat
from ldm.modules.attention import attention_heads
from ldm.modules.diffusionmodules.clips import Clips, FrameMixer
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from ldm.modules.diffusionmodules.resblock import ResBlock
from ldm.modules.diffusionmodules.unet_layers import LayerFactory
from ldm.modules.diffusionmodules.util import checkpointed, group_norm, zero_module
from ldm.modules.video_attention import SpatialVideoTransformer, TemporalOptions
from ldm.util import ConfigError

COPY = "time_copy"
TEMPORAL = ("time_stack", "time_mixer", "time_pos_embed", COPY)  # what pictures' networks lack, in a state dict


class TemporalResBlock(nn.Module):
    """Two normalised convolutions over the frames of a clip, added to their input; the second starts as nothing.

    Shapes: x [clips, C, T, H, W], emb [clips, T, emb_channels] or None -> [clips, C, T, H, W].

    Args:
        emb_channels: width of the timestep's embedding; None where there is none (autoencoders).
        kernel: over frames, rows and columns, odd; one number for all three.
        groups: of the channels, which a convolution keeps apart.
    """

    def __init__(
        self,
        channels: int,
        emb_channels: int | None,
        dropout: float = 0.0,
        kernel: int | Sequence[int] = (3, 1, 1),
        use_checkpoint: bool = False,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.use_checkpoint = use_checkpoint
        entry = conv_over_time(channels, channels, kernel, groups)
        self.in_layers = nn.Sequential(group_norm(channels), nn.SiLU(), entry)
        if emb_channels is not None:
            self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, channels))
        self.out_layers = nn.Sequential(
            group_norm(channels),
            nn.SiLU(),
            nn.Dropout(dropout),
            zero_module(conv_over_time(channels, channels, kernel, groups)),
        )

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        return checkpointed(self._forward, x, emb, enabled=self.use_checkpoint and self.training)

    def _forward(self, x: Tensor, emb: Tensor | None) -> Tensor:
        h = self.in_layers(x)
        if emb is not None:
            h = h + self.emb_layers(emb).transpose(1, 2)[..., None, None]
        return x + self.out_layers(h)


class VideoResBlock(ResBlock):
    """A residual block of the UNet, then one over the frames that is mixed in.

    Shapes: x [clips T, channels, H, W], emb [clips T, emb_channels] -> [clips T, out_channels, H', W'].
    """

    takes = ("emb", "clips")

    def __init__(self, channels: int, emb_channels: int, dropout: float, out_channels: int, video: TemporalOptions,
                 **options: Any) -> None:  # fmt: skip
        """``options`` are those of :class:`ResBlock`."""
        super().__init__(channels, emb_channels, dropout, out_channels, **options)
        self.time_stack = TemporalResBlock(
            out_channels, emb_channels, dropout, video.video_kernel_size, self.use_checkpoint, video.video_groups
        )
        self.time_mixer = FrameMixer(video.merge_strategy, video.merge_factor)

    def forward(self, x: Tensor, emb: Tensor, clips: Clips) -> Tensor:  # type: ignore[override]
        h = super().forward(x, emb)
        moving = clips.rows(self.time_stack(clips.volumes(h), clips.apart(emb)))
        return self.time_mixer(h, moving, clips)


class ConvWithinFrames(nn.Conv3d):
    """A convolution over frames that sees one at a time, computed as one of two dimensions.

    So configs/tiny-video/film.yaml was trained and timed on a GPU, whose kernels for groups in three dimensions
    were not tried; on a CPU both take the same time. Stride, dilation and padding are those of ``conv_over_time``.

    Shapes: x [clips, C, T, H, W] -> [clips, C', T, H, W].
    """

    def forward(self, x: Tensor) -> Tensor:
        frames = x.transpose(1, 2).flatten(0, 1)
        assert not isinstance(self.padding, str)
        out = F.conv2d(frames, self.weight.squeeze(2), self.bias, padding=self.padding[1:], groups=self.groups)
        return out.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)


class InputMixer(nn.Module):
    """What a network says, mixed in each place and channel with its input: o + k o + sum_i a_i x_i.

    The input x is the noisy latent and those of the given frames, so that what is in one of these is copied and not
    drawn anew. The factors k and a_i are of the network's last features and its input; they start as nothing, and are
    nothing in pictures on their own.

    Shapes: said [clips T, C, H, W], features [clips T, channels, H, W], x [clips T, n C, H, W] -> [clips T, C, H, W].

    Args:
        channels: of the features.
        in_channels: of x.
        out_channels: C, which divides them.

    Raises:
        ConfigError: it does not.
    """

    def __init__(self, channels: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        if in_channels % out_channels:
            raise ConfigError(f"copy_given: out_channels must divide in_channels, got {out_channels}, {in_channels}")
        self.parts = 1 + in_channels // out_channels
        self.factors = nn.Sequential(
            nn.Conv2d(channels + in_channels, channels, 3, padding=1),
            nn.SiLU(),
            zero_module(nn.Conv2d(channels, self.parts * out_channels, 1)),
        )

    def forward(self, said: Tensor, features: Tensor, x: Tensor, clips: Clips) -> Tensor:
        factors = self.factors(torch.cat([features, x.to(features.dtype)], dim=1)).to(x.dtype)
        if clips.stills is not None:
            factors = factors * ~clips.stills.bool().reshape(-1, 1, 1, 1)
        said = said.to(x.dtype)
        parts = torch.cat([said, x], dim=1).unflatten(1, (self.parts, -1))
        return said + (factors.unflatten(1, (self.parts, -1)) * parts).sum(1)


@dataclass(frozen=True)
class VideoLayers(LayerFactory):
    """The layers of a video UNet: where the UNet has a residual block or a transformer, one with a temporal half."""

    video: TemporalOptions = field(default_factory=TemporalOptions)

    def resblock(self, channels: int, out_channels: int, up: bool = False, down: bool = False) -> ResBlock:
        return VideoResBlock(
            channels, self.emb_channels, self.dropout, out_channels, self.video,
            use_scale_shift_norm=self.use_scale_shift_norm, use_checkpoint=self.use_checkpoint, up=up, down=down,
        )  # fmt: skip

    def attention(self, channels: int, heads: int, depth: int, disable_self_attn: bool) -> nn.Module:
        options = self.options
        heads, width = attention_heads(channels, heads, options.num_head_channels)
        context_dim = options.context_dim
        return SpatialVideoTransformer(
            channels, heads, width, depth, self.dropout,
            list(context_dim) if isinstance(context_dim, Sequence) else context_dim,
            disable_self_attn, options.use_linear_in_transformer, self.use_checkpoint, self.video,
        )  # fmt: skip


class VideoUNet(UNetModel):
    """A UNet over the frames of clips; without its temporal layers it is :class:`UNetModel`, under the same keys.

    Shapes: x [clips T, in_channels, H, W], timesteps [clips T], context [clips T, N, context_dim], y
    [clips T, adm_in_channels] -> [clips T, out_channels, H, W]. Before training it gives what the UNet would give for
    each frame alone.
    """

    @flat(video=TemporalOptions)
    def __init__(self, *, video: TemporalOptions, **unet: Any) -> None:
        """``unet`` are the parameters of :class:`UNetModel`.

        Raises:
            ConfigError: values that do not fit together, or a network whose frames change their number on the way.
        """
        if video.copy_given and unet.get("n_embed") is not None:
            raise ConfigError("copy_given mixes latents, and a network with n_embed says which of a codebook they are")
        if video.time_downup:
            raise ConfigError("VideoUNet with 'time_downup: true', fewer frames inside the network, is not here")
        layers = functools.partial(VideoLayers, video=video)
        super().__init__(**{"use_spatial_transformer": True, "legacy": False, **unet, "layers": layers})
        self.time_copy: InputMixer | None = None
        if video.copy_given:
            self.time_copy = InputMixer(self.model_channels, self.in_channels, self.out_channels).to(self.dtype)

    def read_out(self, h: Tensor, x: Tensor, clips: Clips | None) -> Tensor:
        if self.time_copy is None or clips is None:
            return super().read_out(h, x, clips)
        features = self.out[:-1](h)
        return self.time_copy(self.out[-1](features), features, x, clips)

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | list[Tensor] | None = None,
        y: Tensor | None = None,
        num_video_frames: int | None = None,
        image_only_indicator: Tensor | None = None,
    ) -> Tensor:
        """Shapes are those of the class.

        Args:
            num_video_frames: T; told by the indicator where it is not given.
            image_only_indicator: [clips, T], see :class:`Clips`.

        Raises:
            ValueError: neither is given, the rows are no whole clips, or ``y`` is as in the base.
        """
        if num_video_frames is None and image_only_indicator is None:
            raise ValueError("a video network must be told num_video_frames, the frames of a clip")
        frames = int(image_only_indicator.shape[-1] if num_video_frames is None else num_video_frames)  # type: ignore[union-attr]
        if x.shape[0] % frames:
            raise ValueError(f"{x.shape[0]} frames are no whole clips of {frames}")
        return self.run(x, timesteps, context, y, Clips(frames, image_only_indicator))


def conv_over_time(
    channels_in: int, channels_out: int, kernel: int | Sequence[int], groups: int = 1
) -> nn.Conv3d:
    """A convolution over frames, rows and columns that keeps the size.

    Raises:
        ConfigError: the kernel is not one or three odd numbers, or the groups do not divide the channels.
    """
    if groups < 1 or channels_in % groups or channels_out % groups:
        raise ConfigError(f"video_groups must divide the {channels_in} channels of a layer, got {groups}")
    sides = (kernel,) * 3 if isinstance(kernel, int) else tuple(kernel)
    if len(sides) != 3 or any(side < 1 or side % 2 == 0 for side in sides):
        raise ConfigError(f"video_kernel_size must be three odd numbers (frames, rows, columns), got {kernel}")
    frames, rows, columns = sides
    padding = (frames // 2, rows // 2, columns // 2)
    kind = nn.Conv3d if frames > 1 else ConvWithinFrames
    return kind(channels_in, channels_out, (frames, rows, columns), padding=padding, groups=groups)


def is_temporal(key: str) -> bool:
    """Whether a key of a network's state dict is of what a network of pictures does not have."""
    parts = key.split(".")
    return any(name in parts for name in (*TEMPORAL, "label_emb"))


def copies(key: str) -> bool:
    """Whether a key of a model's state dict, or of averages in it, is of an :class:`InputMixer`."""
    return COPY in key

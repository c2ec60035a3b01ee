"""The decoder of films: temporal layers behind those of the autoencoder's decoder (Blattmann et al. 2023)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ldm.modules.diffusionmodules.clips import Clips
from ldm.modules.diffusionmodules.model import Decoder
from ldm.modules.diffusionmodules.util import timestep_embedding
from ldm.modules.diffusionmodules.vae_blocks import AttnBlock, BlockKinds, ResnetBlock, attention_block
from ldm.modules.diffusionmodules.video_model import TemporalResBlock, conv_over_time
from ldm.modules.video_attention import VideoTransformerBlock, frame_embedding, over_frames
from ldm.util import ConfigError

# which layers see the neighbouring frames, for each ``time_mode``: residual blocks and the last one, attention
TIME_MODES = {"conv-only": (True, False), "all": (True, True), "attn-only": (False, True)}


class VideoResnetBlock(ResnetBlock):
    """A residual block, then one over the frames: a temporal + (1 - a) spatial, the other way round than in the UNet.

    Shapes: [clips T, C, H, W] -> [clips T, C', H, W]. ``clips`` None leaves the temporal half out.
    """

    takes: ClassVar[tuple[str, ...]] = ("clips",)

    def __init__(
        self, in_channels: int, out_channels: int, dropout: float = 0.0, kernel: int | Sequence[int] = (3, 1, 1)
    ) -> None:
        super().__init__(in_channels, out_channels, dropout)
        self.time_stack = TemporalResBlock(out_channels, None, dropout, kernel)
        self.mix_factor = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, clips: Clips | None = None) -> Tensor:
        x = super().forward(x)
        if clips is None:
            return x
        moving = clips.rows(self.time_stack(clips.volumes(x)))
        return torch.lerp(x, moving.to(x.dtype), self.mix_factor.sigmoid().to(x.dtype))


class VideoAttnBlock(AttnBlock):
    """Attention over positions, then over frames, mixed as in the UNet; [clips T, C, H, W] -> the same."""

    takes: ClassVar[tuple[str, ...]] = ("clips",)

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.time_mix_block = VideoTransformerBlock(channels, 1, channels, checkpoint=False)
        self.video_time_embed = frame_embedding(channels, channels)
        self.mix_factor = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, clips: Clips | None = None) -> Tensor:
        if clips is None:
            return super().forward(x)
        tokens = self.looked_up(x).flatten(2).transpose(1, 2)
        waves = timestep_embedding(torch.arange(clips.frames, device=x.device), x.shape[1]).to(x.dtype)
        place = self.video_time_embed(waves)[:, None]
        moving = over_frames(self.time_mix_block, clips.apart(tokens) + place)
        mixed = torch.lerp(moving, tokens.to(moving.dtype), self.mix_factor.sigmoid().to(moving.dtype))
        return x + self.proj_out(mixed.transpose(1, 2).unflatten(2, x.shape[2:]))


class TimeMixedConv(nn.Conv2d):
    """A convolution, then one over the frames, which begins as nothing; [clips T, C, H, W] -> [clips T, C', H, W]."""

    takes: ClassVar[tuple[str, ...]] = ("clips",)

    def __init__(self, like: nn.Conv2d, kernel: int | Sequence[int]) -> None:
        super().__init__(like.in_channels, like.out_channels, 3, padding=1)
        self.time_mix_conv = conv_over_time(like.out_channels, like.out_channels, kernel)
        nn.init.dirac_(self.time_mix_conv.weight)
        if self.time_mix_conv.bias is not None:
            nn.init.zeros_(self.time_mix_conv.bias)

    def forward(self, x: Tensor, clips: Clips | None = None) -> Tensor:
        x = super().forward(x)
        return x if clips is None else clips.rows(self.time_mix_conv(clips.volumes(x)))


class VideoDecoder(Decoder):
    """Latents of the frames of clips to pictures, each seeing its neighbours.

    Shapes: z [clips T, z_channels, h, w] -> [clips T, out_ch, h f, w f]. Before training it decodes each frame alone.

    Args:
        time_mode: "conv-only" (as released), "attn-only" or "all".
        alpha, merge_strategy: accepted for old YAMLs; what is mixed in is learned, and begins at a half of nothing.
    """

    def __init__(
        self,
        video_kernel_size: int | Sequence[int] = 3,
        time_mode: str = "conv-only",
        alpha: float = 0.0,
        merge_strategy: str = "learned",
        **ddconfig: Any,
    ) -> None:
        """Raises ConfigError: as :class:`Decoder`, or an unknown ``time_mode`` or ``merge_strategy``."""
        if time_mode not in TIME_MODES:
            raise ConfigError(f"time_mode is '{time_mode}'; it must be one of: {', '.join(TIME_MODES)}")
        if merge_strategy != "learned":
            raise ConfigError(f"merge_strategy of a decoder is '{merge_strategy}'; it must be learned")
        convolutions, attention = TIME_MODES[time_mode]
        residual = functools.partial(VideoResnetBlock, kernel=video_kernel_size) if convolutions else ResnetBlock
        super().__init__(BlockKinds(residual, video_attention if attention else attention_block), **ddconfig)
        if convolutions:
            self.conv_out: nn.Conv2d = TimeMixedConv(self.conv_out, video_kernel_size)

    def forward(self, z: Tensor, timesteps: int | None = None, skip_video: bool = False) -> Tensor:
        """Shapes are those of the class.

        Args:
            timesteps: T; None: the rows are one clip.
            skip_video: decode each frame alone.

        Raises:
            ValueError: the rows are no whole clips.
        """
        frames = len(z) if timesteps is None else timesteps
        if len(z) % frames:
            raise ValueError(f"{len(z)} frames are no whole clips of {frames}")
        return self.run(z, None if skip_video else Clips(frames))


def video_attention(channels: int, kind: str) -> nn.Module:
    """The attention that ``attn_type`` names, with its temporal half; ``none`` is the identity.

    Raises:
        ConfigError: an unknown kind.
    """
    plain = attention_block(channels, kind)
    return VideoAttnBlock(channels) if isinstance(plain, AttnBlock) else plain

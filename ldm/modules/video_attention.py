"""Attention over the frames of a clip, between the spatial transformer blocks of a UNet (Blattmann et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.modules.attention import CrossAttention, FeedForward, SpatialTransformer
from ldm.modules.diffusionmodules.clips import Clips, FrameMixer
from ldm.modules.diffusionmodules.util import checkpointed, timestep_embedding, zero_module
from ldm.util import ConfigError


@dataclass(frozen=True)
class TemporalOptions:
    """The temporal half of a video network: how it is mixed in, and over what it looks."""

    merge_strategy: str = "learned_with_images"  # see FrameMixer
    merge_factor: float = 0.5
    video_kernel_size: int | Sequence[int] = 3  # of the temporal convolutions: over frames, rows, columns
    use_spatial_context: bool = False  # the temporal attention looks at the context of a clip's first frame
    time_context_dim: int | None = None  # width of that context; None: as the spatial one's, or none
    disable_temporal_crossattention: bool = False
    extra_ff_mix_layer: bool = True  # accepted for SVD's YAML: it is always there
    time_downup: bool = False  # accepted where it is false
    time_ff_mult: float = 4.0  # hidden width of the temporal feed-forwards, in widths of the layer
    video_groups: int = 1  # of the channels of the temporal convolutions, which see only their own
    max_ddpm_temb_period: int = 10000  # period of the slowest wave of the frame's number
    first_frame_attention: bool = False  # the temporal cross-attention looks at the clip's first frame, all of it
    time_embed_mult: float = 4.0  # hidden width of what tells a layer the frame's number, in widths of the layer
    copy_given: bool = False  # what the network says is mixed with its input channels, see InputMixer


class VideoTransformerBlock(nn.Module):
    """Feed-forward, attention over the frames at each position, cross-attention, feed-forward; each added to its input.

    Shapes: x [clips P, T, dim], context [clips, N, context_dim] or None, for P positions -> [clips P, T, dim]. Every
    branch starts as nothing.
    """

    attention_kinds: ClassVar[dict[str, str]] = {"attn1": "time", "attn2": "time_cross"}

    def __init__(
        self,
        dim: int,
        n_heads: int,
        d_head: int,
        dropout: float = 0.0,
        context_dim: int | None = None,
        checkpoint: bool = True,
        cross_attention: bool = True,
        ff_mult: float = 4.0,
    ) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(dim)
        self.ff_in = FeedForward(dim, mult=ff_mult, glu=True, dropout=dropout)
        self.attn1 = CrossAttention(dim, None, n_heads, d_head, dropout)
        self.ff = FeedForward(dim, mult=ff_mult, glu=True, dropout=dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)
        self.attn2: CrossAttention | None = None
        if cross_attention:
            self.norm2 = nn.LayerNorm(dim)
            self.attn2 = CrossAttention(dim, context_dim, n_heads, d_head, dropout)
        for last in (self.ff_in.net[2], self.ff.net[2], self.attn1.to_out[0]):
            zero_module(last)
        if self.attn2 is not None:
            zero_module(self.attn2.to_out[0])
        self.checkpoint = checkpoint

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return checkpointed(self._forward, x, context, enabled=self.checkpoint and self.training)

    def _forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        x = x + self.ff_in(self.norm_in(x))
        x = x + self.attn1(self.norm1(x))
        if self.attn2 is not None:
            x = x + self._look(self.norm2(x), context)
        return x + self.ff(self.norm3(x))

    def _look(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Attention to the clip's context; to the frames themselves without one."""
        assert self.attn2 is not None
        if context is None:
            return self.attn2(x)
        # all positions of a clip ask the same context: its keys and values are computed once
        return self.attn2(x.reshape(len(context), -1, x.shape[-1]), context).reshape(x.shape)


class SpatialVideoTransformer(SpatialTransformer):
    """Transformer blocks over positions, each followed by one over frames that is mixed in; added to the feature map.

    Shapes: x [clips T, C, H, W], context [clips T, N, context_dim] or a list of one per block -> [clips T, C, H, W].
    """

    takes = ("context", "clips")

    def __init__(
        self,
        in_channels: int,
        n_heads: int,
        d_head: int,
        depth: int = 1,
        dropout: float = 0.0,
        context_dim: int | list[int] | None = None,
        disable_self_attn: bool = False,
        use_linear: bool = False,
        use_checkpoint: bool = True,
        video: TemporalOptions = TemporalOptions(),
    ) -> None:
        super().__init__(
            in_channels, n_heads, d_head, depth, dropout, context_dim, disable_self_attn, use_linear, use_checkpoint
        )
        inner = n_heads * d_head
        self.use_spatial_context = video.use_spatial_context
        self.first_frame_attention = video.first_frame_attention
        self.longest_period = video.max_ddpm_temb_period
        if video.first_frame_attention and (
            video.disable_temporal_crossattention or video.use_spatial_context or video.time_context_dim is not None
        ):
            raise ConfigError(
                "first_frame_attention is what a temporal cross-attention does in place of a context: it goes without "
                "disable_temporal_crossattention, use_spatial_context and time_context_dim"
            )
        of_context = [*context_dim] if isinstance(context_dim, list) else [context_dim] * depth
        if not video.use_spatial_context:
            of_context = [inner if video.first_frame_attention else video.time_context_dim] * depth
        self.time_stack = nn.ModuleList(
            VideoTransformerBlock(
                inner,
                n_heads,
                d_head,
                dropout,
                of_context[i],
                use_checkpoint,
                not video.disable_temporal_crossattention,
                video.time_ff_mult,
            )
            for i in range(depth)
        )
        self.time_pos_embed = frame_embedding(in_channels, inner, video.time_embed_mult)
        self.time_mixer = FrameMixer(video.merge_strategy, video.merge_factor)

    def forward(  # type: ignore[override]
        self, x: Tensor, context: Tensor | list[Tensor] | None, clips: Clips
    ) -> Tensor:
        contexts = context if isinstance(context, list) else [context] * len(self.transformer_blocks)
        numbers = torch.arange(clips.frames, device=x.device)
        waves = timestep_embedding(numbers, x.shape[1], self.longest_period).to(x.dtype)
        place = self.time_pos_embed(waves)[:, None]  # [T, 1, inner]

        tokens = self.into_tokens(x)
        for block, over_time, block_context in zip(self.transformer_blocks, self.time_stack, contexts, strict=True):
            tokens = block(tokens, block_context)
            moving = clips.apart(tokens) + place
            moving = over_frames(over_time, moving, self._looked_at(moving, block_context))
            tokens = self.time_mixer(tokens, moving, clips)
        return x + self.into_map(tokens, x)

    def _looked_at(self, moving: Tensor, context: Tensor | None) -> Tensor | None:
        """What a temporal cross-attention looks at: the first frame, or the context that goes with it, or nothing."""
        if self.first_frame_attention:
            # a thing that moves leaves its position, and attention over frames sees one position alone; layers of
            # attention take tokens that are normalised
            return F.layer_norm(moving[:, 0], moving.shape[-1:])
        return context[:: moving.shape[1]] if self.use_spatial_context and context is not None else None


def over_frames(block: nn.Module, x: Tensor, context: Tensor | None = None) -> Tensor:
    """Run a block over the frames at each position; x [clips, T, P, C], context [clips, N, D] -> [clips T, P, C]."""
    positions = x.shape[2]
    series = block(x.transpose(1, 2).flatten(0, 1), context)
    return series.unflatten(0, (-1, positions)).transpose(1, 2).flatten(0, 1)


def frame_embedding(width: int, out: int, mult: float = 4.0) -> nn.Sequential:
    """What becomes of the sinusoidal features of a frame's number, [T, width] -> [T, out]; starts as nothing."""
    hidden = int(mult * width)
    return nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), zero_module(nn.Linear(hidden, out)))

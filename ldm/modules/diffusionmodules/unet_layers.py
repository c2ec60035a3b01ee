"""What a UNet's options say of its attention, and the layers that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import nn

from ldm.modules.attention import AttentionBlock, SpatialTransformer, attention_heads
from ldm.modules.diffusionmodules.resblock import Downsample, ResBlock, Upsample
from ldm.util import ConfigError


@dataclass(frozen=True)
class AttentionOptions:
    """Attention in a UNet: how many heads, over what, how deep, and where not. A level is a resolution."""

    num_heads: int = -1
    num_head_channels: int = -1  # fixed width of a head instead of a fixed number
    num_heads_upsample: int = -1  # heads in the decoder; -1: as num_heads
    use_new_attention_order: bool = False
    use_spatial_transformer: bool | None = None  # None: where there is a context
    self_transformers: bool = False  # transformers without a context, whose second attention looks at the picture, too
    transformer_depth: int | Sequence[int] = 1  # a list: one per level
    transformer_depth_middle: int | None = None  # None: that of the last level
    context_dim: int | Sequence[int] | None = None
    legacy: bool = True  # accepted for old YAMLs: both readings give the same heads
    disable_self_attentions: Sequence[bool] | None = None  # one per level
    num_attention_blocks: Sequence[int] | None = None  # one per level: only its first blocks get attention
    disable_middle_self_attn: bool = False
    disable_middle_transformer: bool = False  # no attention in the middle
    use_linear_in_transformer: bool = False
    spatial_transformer_attn_type: str = "softmax"  # accepted for SDXL's YAML: attention is always fused softmax

    def __post_init__(self) -> None:
        """Raises ConfigError for options that do not fit together."""
        if self.use_spatial_transformer not in (None, self.has_transformers):
            raise ConfigError("UNetModel needs 'use_spatial_transformer' and 'context_dim' together, or neither")
        if self.num_heads == -1 and self.num_head_channels == -1:
            raise ConfigError("UNetModel needs 'num_heads' or 'num_head_channels'")

    @property
    def has_transformers(self) -> bool:
        """Whether attention is in transformers."""
        return self.self_transformers or self.context_dim is not None

    @property
    def decoder_heads(self) -> int:
        """The number of heads in the decoder; transformers have the encoder's there too."""
        same = self.num_heads_upsample == -1 or self.has_transformers
        return self.num_heads if same else self.num_heads_upsample


@dataclass(frozen=True)
class LayerFactory:
    """The layers of one UNet: what its options say, applied to a width and a level."""

    levels: int
    emb_channels: int
    dropout: float
    use_checkpoint: bool
    conv_resample: bool
    use_scale_shift_norm: bool
    resblock_updown: bool
    attention_resolutions: frozenset[int]
    options: AttentionOptions

    def __post_init__(self) -> None:
        """Raises ConfigError for a list that has not one entry a level."""
        for of_level in (self._depth, self._self_attention_off, self._attention_blocks):
            of_level(0)

    def _depth(self, level: int) -> int:
        return per_level(self.options.transformer_depth, self.levels, "transformer_depth")[level]

    def _self_attention_off(self, level: int) -> bool:
        off = self.options.disable_self_attentions or False
        return per_level(off, self.levels, "disable_self_attentions")[level]

    def _attention_blocks(self, level: int) -> int:
        blocks = self.options.num_attention_blocks or 2**31
        return per_level(blocks, self.levels, "num_attention_blocks")[level]

    def resblock(self, channels: int, out_channels: int, up: bool = False, down: bool = False) -> ResBlock:
        """Feature maps [B, channels, H, W] -> [B, out_channels, H', W'], as large, twice as large or half as large."""
        return ResBlock(
            channels, self.emb_channels, self.dropout, out_channels,
            use_scale_shift_norm=self.use_scale_shift_norm, use_checkpoint=self.use_checkpoint, up=up, down=down,
        )  # fmt: skip

    def attention(self, channels: int, heads: int, depth: int, disable_self_attn: bool) -> nn.Module:
        """Attention over the positions of [B, channels, H, W], which keeps the shape.

        Args:
            heads: how many, unless the options give the channels of a head.
            depth: blocks of the transformer; without ``use_spatial_transformer`` there is one self-attention instead.
            disable_self_attn: both attentions of a block look at the context.
        """
        options = self.options
        heads, width = attention_heads(channels, heads, options.num_head_channels)
        if not options.has_transformers:
            return AttentionBlock(channels, heads, self.use_checkpoint, options.use_new_attention_order)
        context_dim = options.context_dim
        return SpatialTransformer(
            channels, heads, width, depth, self.dropout,
            context_dims(context_dim, depth) if isinstance(context_dim, Sequence) else context_dim,
            disable_self_attn, options.use_linear_in_transformer, self.use_checkpoint,
        )  # fmt: skip

    def block(self, channels: int, out_channels: int, level: int, index: int, heads: int) -> list[nn.Module]:
        """A ResBlock, with attention behind it where this level has some for its ``index``-th block."""
        parts: list[nn.Module] = [self.resblock(channels, out_channels)]
        if 2**level in self.attention_resolutions and index < self._attention_blocks(level):
            off = self._self_attention_off(level)
            parts.append(self.attention(out_channels, heads, self._depth(level), off))
        return parts

    def middle(self, channels: int) -> list[nn.Module]:
        """A ResBlock, attention, a ResBlock."""
        depth = self.options.transformer_depth_middle
        depth = self._depth(self.levels - 1) if depth is None else depth
        attention: nn.Module = nn.Identity()
        if not self.options.disable_middle_transformer:
            heads, off = self.options.num_heads, self.options.disable_middle_self_attn
            attention = self.attention(channels, heads, depth, off)
        return [self.resblock(channels, channels), attention, self.resblock(channels, channels)]

    def down(self, channels: int) -> nn.Module:
        """[B, channels, H, W] -> [B, channels, H / 2, W / 2]."""
        if self.resblock_updown:
            return self.resblock(channels, channels, down=True)
        return Downsample(channels, self.conv_resample)

    def up(self, channels: int) -> nn.Module:
        """[B, channels, H, W] -> [B, channels, 2H, 2W]."""
        if self.resblock_updown:
            return self.resblock(channels, channels, up=True)
        return Upsample(channels, self.conv_resample)


def context_dims(given: Sequence[int], depth: int) -> list[int]:
    """The width of the context of each of a transformer's blocks.

    Raises:
        ConfigError: there are not so many as blocks, and they are not all the same.
    """
    if len(given) == depth:
        return list(given)
    if len(set(given)) != 1:
        raise ConfigError(f"UNetModel parameter 'context_dim' needs one width, or one a block ({depth}), got {given}")
    return [given[0]] * depth


T = TypeVar("T", int, bool)


def per_level(value: T | Sequence[T], levels: int, name: str) -> list[T]:
    """One value for each of the levels: those of a list, or the same for all.

    Raises:
        ConfigError: a list of another length.
    """
    values = list(value) if isinstance(value, Sequence) else [value] * levels
    if len(values) != levels:
        raise ConfigError(f"UNetModel parameter '{name}' needs one entry a level ({levels}), got {len(values)}")
    return values

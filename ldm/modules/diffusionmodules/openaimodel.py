"""The UNet that predicts noise (or v, or x0), in every shape of the released latent-diffusion models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ldm.modules.attention import AttentionBlock, SpatialTransformer, attention_heads
from ldm.modules.diffusionmodules.resblock import Downsample, ResBlock, Upsample
from ldm.modules.diffusionmodules.util import group_norm, timestep_embedding, zero_module
from ldm.util import ConfigError


class TimestepEmbedSequential(nn.Sequential):
    """Layers in a row, each given what it takes: a ResBlock the timestep, a transformer the context."""

    def forward(self, x: Tensor, emb: Tensor, context: Tensor | list[Tensor] | None = None) -> Tensor:  # type: ignore[override]
        for layer in self:
            if isinstance(layer, ResBlock):
                x = layer(x, emb)
            elif isinstance(layer, SpatialTransformer):
                x = layer(x, context)
            else:
                x = layer(x)
        return x


class Timestep(nn.Module):
    """A timestep as sinusoidal features, [B] -> [B, dim]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, t: Tensor) -> Tensor:
        return timestep_embedding(t, self.dim)


@dataclass(frozen=True)
class LayerFactory:
    """The layers of one UNet: what its options say, applied to a width and a level."""

    emb_channels: int
    dropout: float
    use_checkpoint: bool
    conv_resample: bool
    use_scale_shift_norm: bool
    resblock_updown: bool
    attention_resolutions: frozenset[int]
    num_head_channels: int
    use_new_attention_order: bool
    use_spatial_transformer: bool
    depths: list[int]
    context_dim: int | list[int] | None
    self_attention_off: list[bool]
    attention_blocks: list[int]
    use_linear: bool

    def resblock(self, channels: int, out_channels: int, up: bool = False, down: bool = False) -> ResBlock:
        return ResBlock(
            channels, self.emb_channels, self.dropout, out_channels,
            use_scale_shift_norm=self.use_scale_shift_norm, use_checkpoint=self.use_checkpoint, up=up, down=down,
        )  # fmt: skip

    def attention(self, channels: int, heads: int, depth: int, disable_self_attn: bool) -> nn.Module:
        heads, width = attention_heads(channels, heads, self.num_head_channels)
        if not self.use_spatial_transformer:
            return AttentionBlock(channels, heads, self.use_checkpoint, self.use_new_attention_order)
        return SpatialTransformer(
            channels, heads, width, depth, self.dropout, self.context_dim,
            disable_self_attn, self.use_linear, self.use_checkpoint,
        )  # fmt: skip

    def block(self, channels: int, out_channels: int, level: int, index: int, heads: int) -> list[nn.Module]:
        """A ResBlock, with attention behind it where this level has some for its ``index``-th block."""
        parts: list[nn.Module] = [self.resblock(channels, out_channels)]
        if 2**level in self.attention_resolutions and index < self.attention_blocks[level]:
            disabled = self.self_attention_off[level]
            parts.append(self.attention(out_channels, heads, self.depths[level], disabled))
        return parts

    def down(self, channels: int) -> nn.Module:
        if self.resblock_updown:
            return self.resblock(channels, channels, down=True)
        return Downsample(channels, self.conv_resample)

    def up(self, channels: int) -> nn.Module:
        if self.resblock_updown:
            return self.resblock(channels, channels, up=True)
        return Upsample(channels, self.conv_resample)


class UNetModel(nn.Module):
    """UNet with residual blocks, attention and a timestep (Rombach et al. 2022; Dhariwal and Nichol 2021).

    Shapes: x [B, in_channels, H, W], timesteps [B], context [B, N, context_dim], y [B] or [B, adm_in_channels]
    -> [B, out_channels, H, W], or [B, n_embed, H, W] when ``n_embed`` is given. H and W must be divisible by
    ``2 ** (len(channel_mult) - 1)``.
    """

    def __init__(
        self,
        image_size: int | Sequence[int] | None = None,  # of the latent; informative, any size runs
        in_channels: int = 4,
        model_channels: int = 320,  # width of the first level
        out_channels: int = 4,
        num_res_blocks: int | Sequence[int] = 2,  # a list: one per level
        attention_resolutions: Sequence[int] = (),  # down-sampling factors at which attention is used
        dropout: float = 0.0,
        channel_mult: Sequence[int] = (1, 2, 4, 8),  # width of a level, in model_channels
        conv_resample: bool = True,  # learned change of resolution
        dims: int = 2,  # pictures only
        num_classes: int | str | None = None,  # a count, 'continuous', 'timestep' or 'sequential' (vector y)
        use_checkpoint: bool = False,  # recompute in the backward pass of training, to save memory
        use_fp16: bool = False,
        use_bf16: bool = False,
        num_heads: int = -1,
        num_head_channels: int = -1,  # fixed width of a head instead of a fixed number
        num_heads_upsample: int = -1,  # heads in the decoder; -1: as num_heads
        use_scale_shift_norm: bool = False,
        resblock_updown: bool = False,  # change resolution inside a ResBlock
        use_new_attention_order: bool = False,
        use_spatial_transformer: bool = False,
        transformer_depth: int | Sequence[int] = 1,  # a list: one per level
        transformer_depth_middle: int | None = None,  # None: that of the last level
        context_dim: int | Sequence[int] | None = None,
        n_embed: int | None = None,  # predict codebook ids instead of a latent
        legacy: bool = True,  # accepted for old YAMLs: both readings give the same heads
        disable_self_attentions: Sequence[bool] | None = None,  # one per level
        num_attention_blocks: Sequence[int] | None = None,  # one per level: only its first blocks get attention
        disable_middle_self_attn: bool = False,
        use_linear_in_transformer: bool = False,
        adm_in_channels: int | None = None,
        spatial_transformer_attn_type: str = "softmax",  # accepted for SDXL's YAML: attention is always fused softmax
    ) -> None:
        """Raises ConfigError for parameters that do not fit together."""
        super().__init__()
        if dims != 2:
            raise ConfigError(f"UNetModel parameter 'dims' must be 2 (pictures), got {dims}")
        if use_spatial_transformer != (context_dim is not None):
            raise ConfigError("UNetModel needs 'use_spatial_transformer' and 'context_dim' together, or neither")
        if num_heads == -1 and num_head_channels == -1:
            raise ConfigError("UNetModel needs 'num_heads' or 'num_head_channels'")
        levels = len(channel_mult)
        emb_channels = 4 * model_channels
        self.image_size = image_size
        self.in_channels = in_channels
        self.model_channels = model_channels
        self.out_channels = out_channels
        self.num_classes = num_classes
        self.context_dim = context_dim
        self.predict_codebook_ids = n_embed is not None

        layers = LayerFactory(
            emb_channels=emb_channels,
            dropout=dropout,
            use_checkpoint=use_checkpoint,
            conv_resample=conv_resample,
            use_scale_shift_norm=use_scale_shift_norm,
            resblock_updown=resblock_updown,
            attention_resolutions=frozenset(attention_resolutions),
            num_head_channels=num_head_channels,
            use_new_attention_order=use_new_attention_order,
            use_spatial_transformer=use_spatial_transformer,
            depths=_per_level(transformer_depth, levels, "transformer_depth"),
            context_dim=list(context_dim) if isinstance(context_dim, Sequence) else context_dim,
            self_attention_off=_per_level(disable_self_attentions or False, levels, "disable_self_attentions"),
            attention_blocks=_per_level(num_attention_blocks or 2**31, levels, "num_attention_blocks"),
            use_linear=use_linear_in_transformer,
        )
        self.time_embed = embedding_mlp(model_channels, emb_channels)
        if num_classes is not None:
            self.label_emb = label_embedding(num_classes, adm_in_channels, model_channels, emb_channels)

        blocks = _per_level(num_res_blocks, levels, "num_res_blocks")
        widths = [mult * model_channels for mult in channel_mult]
        self.input_blocks, skips = self._build_encoder(layers, widths, blocks, num_heads)
        ch = widths[-1]
        middle_depth = layers.depths[-1] if transformer_depth_middle is None else transformer_depth_middle
        self.middle_block = TimestepEmbedSequential(
            layers.resblock(ch, ch),
            layers.attention(ch, num_heads, middle_depth, disable_middle_self_attn),
            layers.resblock(ch, ch),
        )
        heads_up = num_heads if num_heads_upsample == -1 or use_spatial_transformer else num_heads_upsample
        self.output_blocks = self._build_decoder(layers, widths, blocks, heads_up, skips)
        ch = widths[0]

        self.out = nn.Sequential(group_norm(ch), nn.SiLU(), zero_module(nn.Conv2d(ch, out_channels, 3, padding=1)))
        if n_embed is not None:
            self.id_predictor = nn.Sequential(group_norm(ch), nn.Conv2d(model_channels, n_embed, 1))
        if use_fp16 or use_bf16:
            self.to(torch.float16 if use_fp16 else torch.bfloat16)

    def _build_encoder(
        self, layers: LayerFactory, widths: list[int], blocks: list[int], heads: int
    ) -> tuple[nn.ModuleList, list[int]]:
        """The blocks on the way down, and the width of each one's output."""
        ch = widths[0]
        built = [TimestepEmbedSequential(nn.Conv2d(self.in_channels, ch, 3, padding=1))]
        skips = [ch]
        for level, width in enumerate(widths):
            for block in range(blocks[level]):
                built.append(TimestepEmbedSequential(*layers.block(ch, width, level, block, heads)))
                ch = width
                skips.append(ch)
            if level < len(widths) - 1:
                built.append(TimestepEmbedSequential(layers.down(ch)))
                skips.append(ch)
        return nn.ModuleList(built), skips

    def _build_decoder(
        self, layers: LayerFactory, widths: list[int], blocks: list[int], heads: int, skips: list[int]
    ) -> nn.ModuleList:
        """The blocks on the way up; each takes one encoder output, of the widths ``skips``, beside its input."""
        skips = list(skips)
        ch = widths[-1]
        built = []
        for level in reversed(range(len(widths))):
            for block in range(blocks[level] + 1):
                parts = layers.block(ch + skips.pop(), widths[level], level, block, heads)
                ch = widths[level]
                if level > 0 and block == blocks[level]:
                    parts.append(layers.up(ch))
                built.append(TimestepEmbedSequential(*parts))
        return nn.ModuleList(built)

    @property
    def dtype(self) -> torch.dtype:
        """The precision that the network computes in: that of its weights."""
        return next(self.parameters()).dtype

    def embed_conditions(self, timesteps: Tensor, y: Tensor | None) -> Tensor:
        """Timestep [B] and class or vector y -> [B, 4 model_channels].

        Raises:
            ValueError: y is given to a network without classes, or missing for one with classes.
        """
        if (y is not None) != (self.num_classes is not None):
            raise ValueError("y must be given if and only if the network is class-conditional (num_classes)")
        emb = self.time_embed(timestep_embedding(timesteps, self.model_channels).to(self.dtype))
        if y is None:
            return emb
        y = y if self.num_classes == "timestep" or not y.is_floating_point() else y.to(self.dtype)
        if self.num_classes == "timestep":
            return emb + self.label_emb[1](self.label_emb[0](y).to(self.dtype))  # type: ignore[index]
        if self.num_classes == "continuous":
            y = y.to(self.dtype).reshape(-1, 1)
        return emb + self.label_emb(y)

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | list[Tensor] | None = None,
        y: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        emb = self.embed_conditions(timesteps, y)
        if isinstance(context, Tensor):
            context = context.to(self.dtype)

        h = x.to(self.dtype)
        skips = []
        for block in self.input_blocks:
            h = block(h, emb, context)
            skips.append(h)
        h = self.middle_block(h, emb, context)
        for block in self.output_blocks:
            skip = skips.pop()
            h = h[..., : skip.shape[-2], : skip.shape[-1]]  # a size that 2 does not divide was rounded up on the way
            h = block(torch.cat([h, skip], dim=1), emb, context)
        h = self.id_predictor(h) if self.predict_codebook_ids else self.out(h)
        return h.to(x.dtype)


T = TypeVar("T", int, bool)


def _per_level(value: T | Sequence[T], levels: int, name: str) -> list[T]:
    values = list(value) if isinstance(value, Sequence) else [value] * levels
    if len(values) != levels:
        raise ConfigError(f"UNetModel parameter '{name}' needs one entry a level ({levels}), got {len(values)}")
    return values


def embedding_mlp(dim_in: int, dim_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim_in, dim_out), nn.SiLU(), nn.Linear(dim_out, dim_out))


def label_embedding(
    num_classes: int | str, adm_in_channels: int | None, model_channels: int, emb_channels: int
) -> nn.Module:
    """What turns y into something to add to the timestep's embedding: by a table, or an MLP for vectors (SDXL)."""
    if isinstance(num_classes, int):
        return nn.Embedding(num_classes, emb_channels)
    if num_classes == "continuous":
        return nn.Linear(1, emb_channels)
    if num_classes == "timestep":
        return nn.Sequential(Timestep(model_channels), embedding_mlp(model_channels, emb_channels))
    if num_classes == "sequential":
        if adm_in_channels is None:
            raise ConfigError("UNetModel with 'num_classes: sequential' needs 'adm_in_channels', the width of y")
        return nn.Sequential(embedding_mlp(adm_in_channels, emb_channels))
    raise ConfigError(
        f"UNetModel parameter 'num_classes' must be a number, 'continuous', 'timestep' or 'sequential', "
        f"got '{num_classes}'"
    )

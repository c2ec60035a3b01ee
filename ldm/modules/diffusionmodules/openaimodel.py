"""The UNet that predicts noise (or v, or x0), in every shape of the released latent-diffusion models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
        levels = len(channel_mult)
        if dims != 2:
            raise ConfigError(f"UNetModel parameter 'dims' must be 2 (pictures), got {dims}")
        if use_spatial_transformer and context_dim is None:
            raise ConfigError("UNetModel with 'use_spatial_transformer' needs 'context_dim', the width of the context")
        if context_dim is not None and not use_spatial_transformer:
            raise ConfigError("UNetModel with 'context_dim' needs 'use_spatial_transformer: true'")
        if num_heads == -1 and num_head_channels == -1:
            raise ConfigError("UNetModel needs 'num_heads' or 'num_head_channels'")
        num_res_blocks = _per_level(num_res_blocks, levels, "num_res_blocks")
        depths = _per_level(transformer_depth, levels, "transformer_depth")
        if isinstance(context_dim, Sequence):
            context_dim = list(context_dim)

        self.image_size = image_size
        self.in_channels = in_channels
        self.model_channels = model_channels
        self.out_channels = out_channels
        self.num_classes = num_classes
        self.context_dim = context_dim
        self.predict_codebook_ids = n_embed is not None
        self.downsampling = 2 ** (levels - 1)
        emb_channels = 4 * model_channels

        def attention(channels: int, heads: int, depth: int, disable_self_attn: bool) -> nn.Module:
            heads, width = attention_heads(channels, heads, num_head_channels)
            if not use_spatial_transformer:
                return AttentionBlock(channels, heads, use_checkpoint, use_new_attention_order)
            return SpatialTransformer(
                channels, heads, width, depth, dropout, context_dim,  # type: ignore[arg-type]
                disable_self_attn, use_linear_in_transformer, use_checkpoint,
            )  # fmt: skip

        def resblock(channels: int, out: int, **resample: bool) -> ResBlock:
            return ResBlock(
                channels, emb_channels, dropout, out,
                use_scale_shift_norm=use_scale_shift_norm, use_checkpoint=use_checkpoint, **resample,
            )  # fmt: skip

        def has_attention(level: int, block: int) -> bool:
            allowed = num_attention_blocks is None or block < num_attention_blocks[level]
            return 2**level in set(attention_resolutions) and allowed

        def level_attention(level: int, channels: int, heads: int) -> nn.Module:
            disabled = bool(disable_self_attentions[level]) if disable_self_attentions is not None else False
            return attention(channels, heads, depths[level], disabled)

        self.time_embed = _embedding_mlp(model_channels, emb_channels)
        if num_classes is not None:
            self.label_emb = _label_embedding(num_classes, adm_in_channels, model_channels, emb_channels)

        widths = [mult * model_channels for mult in channel_mult]
        ch = widths[0]
        skips = [ch]
        self.input_blocks = nn.ModuleList(
            [TimestepEmbedSequential(nn.Conv2d(in_channels, ch, 3, padding=1))]
        )
        for level, width in enumerate(widths):
            for block in range(num_res_blocks[level]):
                layers: list[nn.Module] = [resblock(ch, width)]
                ch = width
                if has_attention(level, block):
                    layers.append(level_attention(level, ch, num_heads))
                self.input_blocks.append(TimestepEmbedSequential(*layers))
                skips.append(ch)
            if level < levels - 1:
                down = resblock(ch, ch, down=True) if resblock_updown else Downsample(ch, conv_resample)
                self.input_blocks.append(TimestepEmbedSequential(down))
                skips.append(ch)

        middle_depth = depths[-1] if transformer_depth_middle is None else transformer_depth_middle
        self.middle_block = TimestepEmbedSequential(
            resblock(ch, ch), attention(ch, num_heads, middle_depth, disable_middle_self_attn), resblock(ch, ch)
        )

        heads_up = num_heads if num_heads_upsample == -1 or use_spatial_transformer else num_heads_upsample
        self.output_blocks = nn.ModuleList()
        for level in reversed(range(levels)):
            for block in range(num_res_blocks[level] + 1):
                layers = [resblock(ch + skips.pop(), widths[level])]
                ch = widths[level]
                if has_attention(level, block):
                    layers.append(level_attention(level, ch, heads_up))
                if level > 0 and block == num_res_blocks[level]:
                    layers.append(resblock(ch, ch, up=True) if resblock_updown else Upsample(ch, conv_resample))
                self.output_blocks.append(TimestepEmbedSequential(*layers))

        self.out = nn.Sequential(
            group_norm(ch), nn.SiLU(), zero_module(nn.Conv2d(ch, out_channels, 3, padding=1))
        )
        if n_embed is not None:
            self.id_predictor = nn.Sequential(group_norm(ch), nn.Conv2d(model_channels, n_embed, 1))
        if use_fp16 or use_bf16:
            self.to(torch.float16 if use_fp16 else torch.bfloat16)

    @property
    def dtype(self) -> torch.dtype:
        """The precision that the network computes in: that of its weights."""
        return self.time_embed[0].weight.dtype  # type: ignore[union-attr, return-value]

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
            h = block(torch.cat([h, skips.pop()], dim=1), emb, context)
        h = self.id_predictor(h) if self.predict_codebook_ids else self.out(h)
        return h.to(x.dtype)


def _per_level(value: int | Sequence[int], levels: int, name: str) -> list[int]:
    values = [value] * levels if isinstance(value, int) else list(value)
    if len(values) != levels:
        raise ConfigError(f"UNetModel parameter '{name}' needs one entry a level ({levels}), got {len(values)}")
    return values


def _embedding_mlp(dim_in: int, dim_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim_in, dim_out), nn.SiLU(), nn.Linear(dim_out, dim_out))


def _label_embedding(
    num_classes: int | str, adm_in_channels: int | None, model_channels: int, emb_channels: int
) -> nn.Module:
    """What turns y into something to add to the timestep's embedding: by a table, or an MLP for vectors (SDXL)."""
    if isinstance(num_classes, int):
        return nn.Embedding(num_classes, emb_channels)
    if num_classes == "continuous":
        return nn.Linear(1, emb_channels)
    if num_classes == "timestep":
        return nn.Sequential(Timestep(model_channels), _embedding_mlp(model_channels, emb_channels))
    if num_classes == "sequential":
        if adm_in_channels is None:
            raise ConfigError("UNetModel with 'num_classes: sequential' needs 'adm_in_channels', the width of y")
        return nn.Sequential(_embedding_mlp(adm_in_channels, emb_channels))
    raise ConfigError(
        f"UNetModel parameter 'num_classes' must be a number, 'continuous', 'timestep' or 'sequential', "
        f"got '{num_classes}'"
    )

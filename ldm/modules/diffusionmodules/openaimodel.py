"""The UNet that predicts noise (or v, or x0), in every shape of the released latent-diffusion models."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ldm.flat_options import flat
from ldm.modules.cpu.held import computing_dtype
from ldm.modules.diffusionmodules.clips import Clips
from ldm.modules.diffusionmodules.unet_layers import AttentionOptions, LayerFactory, per_level
from ldm.modules.diffusionmodules.util import group_norm, timestep_embedding, zero_module
from ldm.util import ConfigError


class TimestepEmbedSequential(nn.Sequential):
    """Layers in a row, each given what its ``takes`` names: the timestep, the context, how rows make clips.

    Shapes: x [B, C, H, W], emb [B, emb_channels], context [B, N, context_dim] or one per transformer block.
    """

    def forward(  # type: ignore[override]
        self, x: Tensor, emb: Tensor, context: Tensor | list[Tensor] | None = None, clips: Clips | None = None
    ) -> Tensor:
        given = {"emb": emb, "context": context, "clips": clips}
        for layer in self:
            x = layer(x, *(given[name] for name in getattr(layer, "takes", ())))
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

    @flat(attention=AttentionOptions)
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
        use_scale_shift_norm: bool = False,
        resblock_updown: bool = False,  # change resolution inside a ResBlock
        n_embed: int | None = None,  # predict codebook ids instead of a latent
        adm_in_channels: int | None = None,
        layers: Callable[..., LayerFactory] = LayerFactory,  # a subclass's own
        *,
        attention: AttentionOptions,
    ) -> None:
        """Raises ConfigError for parameters that do not fit together."""
        super().__init__()
        if dims != 2:
            raise ConfigError(f"UNetModel parameter 'dims' must be 2 (pictures), got {dims}")
        self.image_size = image_size
        self.in_channels = in_channels
        self.model_channels = model_channels
        self.out_channels = out_channels
        self.num_classes = num_classes
        self.context_dim = attention.context_dim
        self.predict_codebook_ids = n_embed is not None

        levels, emb_channels = len(channel_mult), 4 * model_channels
        factory = layers(
            levels, emb_channels, dropout, use_checkpoint, conv_resample, use_scale_shift_norm, resblock_updown,
            frozenset(attention_resolutions), attention,
        )  # fmt: skip
        self.time_embed = embedding_mlp(model_channels, emb_channels)
        if num_classes is not None:
            self.label_emb = label_embedding(num_classes, adm_in_channels, model_channels, emb_channels)
        blocks = per_level(num_res_blocks, levels, "num_res_blocks")
        widths = [mult * model_channels for mult in channel_mult]
        self.input_blocks, skips = self._build_encoder(factory, widths, blocks)
        self.middle_block = TimestepEmbedSequential(*factory.middle(widths[-1]))
        self.output_blocks = self._build_decoder(factory, widths, blocks, skips)
        last = nn.Conv2d(widths[0], out_channels, 3, padding=1)
        self.out = nn.Sequential(group_norm(widths[0]), nn.SiLU(), zero_module(last))
        if n_embed is not None:
            self.id_predictor = nn.Sequential(group_norm(widths[0]), nn.Conv2d(model_channels, n_embed, 1))
        if use_fp16 or use_bf16:
            self.to(torch.float16 if use_fp16 else torch.bfloat16)

    def _build_encoder(
        self, layers: LayerFactory, widths: list[int], blocks: list[int]
    ) -> tuple[nn.ModuleList, list[int]]:
        """The blocks on the way down, and the width of each one's output."""
        heads = layers.options.num_heads
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
        self, layers: LayerFactory, widths: list[int], blocks: list[int], skips: list[int]
    ) -> nn.ModuleList:
        """The blocks on the way up; each takes one encoder output, of the widths ``skips``, beside its input."""
        heads = layers.options.decoder_heads
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
        """The precision that the network computes in."""
        return computing_dtype(self)

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
    ) -> Tensor:
        """Shapes are those of the class.

        Raises:
            ValueError: ``y`` is given or missing, as in ``embed_conditions``.
        """
        return self.run(x, timesteps, context, y)

    def run(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | list[Tensor] | None,
        y: Tensor | None,
        clips: Clips | None = None,
    ) -> Tensor:
        """What ``forward`` does, for rows that may be frames of clips."""
        emb = self.embed_conditions(timesteps, y)
        if isinstance(context, Tensor):
            context = context.to(self.dtype)

        h = x.to(self.dtype)
        skips = []
        for block in self.input_blocks:
            h = block(h, emb, context, clips)
            skips.append(h)
        h = self.middle_block(h, emb, context, clips)
        for block in self.output_blocks:
            skip = skips.pop()
            h = h[..., : skip.shape[-2], : skip.shape[-1]]  # a size that 2 does not divide was rounded up on the way
            h = block(torch.cat([h, skip], dim=1), emb, context, clips)
        return self.read_out(h, x, clips).to(x.dtype)

    def read_out(self, h: Tensor, x: Tensor, clips: Clips | None) -> Tensor:
        """What it says, of its last features [B, model_channels, H, W] and its input x [B, in_channels, H, W]."""
        return self.id_predictor(h) if self.predict_codebook_ids else self.out(h)


def embedding_mlp(dim_in: int, dim_out: int) -> nn.Sequential:
    """Linear, SiLU, linear: [B, dim_in] -> [B, dim_out]."""
    return nn.Sequential(nn.Linear(dim_in, dim_out), nn.SiLU(), nn.Linear(dim_out, dim_out))


def label_embedding(
    num_classes: int | str, adm_in_channels: int | None, model_channels: int, emb_channels: int
) -> nn.Module:
    """What turns y into something to add to the timestep's embedding: by a table, or an MLP for vectors (SDXL).

    Shapes: y [B] of classes (a number of them) or timesteps ("timestep"), [B, 1] ("continuous") or
    [B, adm_in_channels] ("sequential") -> [B, emb_channels].

    Raises:
        ConfigError: ``num_classes`` is none of these, or "sequential" without ``adm_in_channels``.
    """
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

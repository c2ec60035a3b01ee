"""Attention and the transformer blocks of the UNet.

Attention is a function value: every attention layer computes q, k and v, hands them to ``self.attend`` and projects
the result. ``attend`` is a class attribute, the plain scaled dot product; ``ldm.control`` puts another function there
for a while. No switch is passed through the network.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ldm.modules.cpu.strips import MIN_KEYS, attention_in_strips
from ldm.modules.diffusionmodules.util import checkpointed, group_norm, zero_module

LONG = 1024  # keys from which the fused kernel's bfloat16 gradient is the quicker one


class Attend(Protocol):
    """What may stand in ``attend``: maps q [b h n d], k [b h m d], v [b h m d] to [b h n d]."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None) -> Tensor: ...


def scaled_dot_product_attention(q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None) -> Tensor:
    """softmax(scale q k^T) v (Vaswani et al. 2017, equation 1); ``scale`` is d^-1/2 when not given.

    Shapes: q [b h n d], k [b h m d], v [b h m d] -> [b h n d].
    """
    if q.dtype is torch.bfloat16 and q.device.type == "cpu":
        wants_gradient = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
        if wants_gradient and k.shape[2] < LONG:
            # with few keys the fused kernel's bfloat16 gradient takes several times as long on a CPU as its float32 one
            compiling = torch.compiler.is_compiling()
            return checkpointed(_attention_in_float32, q, k, v, scale, enabled=not compiling)
        if k.shape[2] >= MIN_KEYS and not wants_gradient:
            return attention_in_strips(q, k, v, scale=scale)
    return F.scaled_dot_product_attention(q, k, v, scale=scale)


def _attention_in_float32(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), scale=scale).to(q.dtype)


class CrossAttention(nn.Module):
    """Multi-head attention from tokens x to a context, or to x itself when no context is given.

    Shapes: x [B, N, query_dim], context [B, M, context_dim] -> [B, N, query_dim].
    """

    attend: Attend = staticmethod(scaled_dot_product_attention)

    def __init__(
        self,
        query_dim: int,
        context_dim: int | None = None,  # None: self-attention
        heads: int = 8,
        dim_head: int = 64,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        inner_dim = heads * dim_head
        context_dim = query_dim if context_dim is None else context_dim
        self.heads = heads
        self.to_q = nn.Linear(query_dim, inner_dim, bias=False)
        self.to_k = nn.Linear(context_dim, inner_dim, bias=False)
        self.to_v = nn.Linear(context_dim, inner_dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner_dim, query_dim), nn.Dropout(dropout))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        context = x if context is None else context
        if context.shape[1] == 1 and self.attend is scaled_dot_product_attention and not torch.is_grad_enabled():
            # whatever is asked, softmax over one key is 1: q is not needed, and all positions have one answer
            return self.to_out(self.to_v(context)).expand(-1, x.shape[1], -1)
        q = self._split(self.to_q(x))
        k = self._split(self.to_k(context))
        v = self._split(self.to_v(context))
        return self.to_out(rearrange(self.attend(q, k, v), "b h n d -> b n (h d)"))

    def _split(self, tokens: Tensor) -> Tensor:
        return rearrange(tokens, "b n (h d) -> b h n d", h=self.heads)


class GEGLU(nn.Module):
    """Linear layer with a GELU gate (Shazeer 2020, equation 6): the first half is the value, the second the gate.

    Shapes: [..., dim_in] -> [..., dim_out].
    """

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim_in, 2 * dim_out)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """Two linear layers with a hidden width of ``mult * dim``; [B, N, dim] -> [B, N, dim_out]."""

    def __init__(
        self, dim: int, dim_out: int | None = None, mult: float = 4, glu: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        hidden = int(dim * mult)
        entry = GEGLU(dim, hidden) if glu else nn.Sequential(nn.Linear(dim, hidden), nn.GELU())
        self.net = nn.Sequential(entry, nn.Dropout(dropout), nn.Linear(hidden, dim_out or dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class BasicTransformerBlock(nn.Module):
    """Self-attention, cross-attention, feed-forward; each behind a LayerNorm and added to its input.

    Shapes: x [B, N, dim], context [B, M, context_dim] -> [B, N, dim].
    """

    @property
    def attention_kinds(self) -> dict[str, str]:
        """What each attention layer looks at, as sites are chosen by."""
        return {"attn1": "cross" if self.disable_self_attn else "self", "attn2": "cross"}

    def __init__(
        self,
        dim: int,
        n_heads: int,
        d_head: int,
        dropout: float = 0.0,
        context_dim: int | None = None,
        gated_ff: bool = True,
        checkpoint: bool = True,
        disable_self_attn: bool = False,  # the first attention looks at the context, too
    ) -> None:
        super().__init__()
        self.disable_self_attn = disable_self_attn
        first_context_dim = context_dim if disable_self_attn else None
        self.attn1 = CrossAttention(dim, first_context_dim, n_heads, d_head, dropout)
        self.ff = FeedForward(dim, glu=gated_ff, dropout=dropout)
        self.attn2 = CrossAttention(dim, context_dim, n_heads, d_head, dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)
        self.checkpoint = checkpoint

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return checkpointed(self._forward, x, context, enabled=self.checkpoint and self.training)

    def _forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        x = x + self.attn1(self.norm1(x), context if self.disable_self_attn else None)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """Transformer blocks over the positions of a feature map, added to it.

    Shapes: x [B, C, H, W], context [B, M, context_dim] or a list of one per block -> [B, C, H, W].
    """

    takes: ClassVar[tuple[str, ...]] = ("context",)  # what a row of layers gives it besides x

    def __init__(
        self,
        in_channels: int,
        n_heads: int,
        d_head: int,
        depth: int = 1,
        dropout: float = 0.0,
        context_dim: int | list[int] | None = None,  # a list: one per block
        disable_self_attn: bool = False,
        use_linear: bool = False,  # linear projections (SD v2) instead of 1x1 convolutions (SD v1)
        use_checkpoint: bool = True,
    ) -> None:
        super().__init__()
        inner_dim = n_heads * d_head
        context_dims = context_dim if isinstance(context_dim, list) else [context_dim] * depth
        self.use_linear = use_linear
        self.norm = group_norm(in_channels, eps=1e-6)
        self.proj_in = nn.Linear(in_channels, inner_dim) if use_linear else nn.Conv2d(in_channels, inner_dim, 1)
        self.transformer_blocks = nn.ModuleList(
            BasicTransformerBlock(
                inner_dim, n_heads, d_head, dropout, context_dims[i],
                checkpoint=use_checkpoint, disable_self_attn=disable_self_attn,
            )
            for i in range(depth)
        )  # fmt: skip
        proj_out = nn.Linear(inner_dim, in_channels) if use_linear else nn.Conv2d(inner_dim, in_channels, 1)
        self.proj_out = zero_module(proj_out)

    def forward(self, x: Tensor, context: Tensor | list[Tensor] | None = None) -> Tensor:
        contexts = context if isinstance(context, list) else [context] * len(self.transformer_blocks)
        tokens = self.into_tokens(x)
        for block, block_context in zip(self.transformer_blocks, contexts, strict=True):
            tokens = block(tokens, block_context)
        return x + self.into_map(tokens, x)

    def into_tokens(self, x: Tensor) -> Tensor:
        """A feature map [B, C, H, W] as what the blocks work on, [B, H W, inner]."""
        h = self.norm(x)
        return self.proj_in(_to_tokens(h)) if self.use_linear else _to_tokens(self.proj_in(h))

    def into_map(self, tokens: Tensor, like: Tensor) -> Tensor:
        """The blocks' tokens [B, H W, inner] as a feature map of the shape of ``like``, [B, C, H, W]."""
        height, width = like.shape[-2:]
        if self.use_linear:
            return _to_map(self.proj_out(tokens), height, width)
        return self.proj_out(_to_map(tokens, height, width))


class AttentionBlock(nn.Module):
    """Self-attention over the positions of a feature map, without a transformer around it (unconditional LDM).

    Shapes: [B, C, *spatial] -> the same.
    """

    attend: Attend = staticmethod(scaled_dot_product_attention)

    def __init__(
        self,
        channels: int,
        num_heads: int = 1,
        use_checkpoint: bool = False,
        use_new_attention_order: bool = False,  # qkv rows ordered (qkv, head, channel), else (head, qkv, channel)
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        rows = "(three h d)" if use_new_attention_order else "(h three d)"
        self.split = f"b {rows} n -> three b h n d"
        self.use_checkpoint = use_checkpoint
        self.norm = group_norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = zero_module(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return checkpointed(self._forward, x, enabled=self.use_checkpoint and self.training)

    def _forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        q, k, v = rearrange(self.qkv(self.norm(flat)), self.split, three=3, h=self.num_heads)
        out = rearrange(self.attend(q, k, v), "b h n d -> b (h d) n")
        return (flat + self.proj_out(out)).reshape(x.shape)


def attention_heads(channels: int, num_heads: int, num_head_channels: int) -> tuple[int, int]:
    """(heads, width of a head): a fixed number of heads, unless ``num_head_channels`` fixes the width (not -1)."""
    heads = num_heads if num_head_channels == -1 else channels // num_head_channels
    return heads, channels // heads


def _to_tokens(feature_map: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, H W, C]; no copy when the map is stored channels-last."""
    return feature_map.permute(0, 2, 3, 1).flatten(1, 2)


def _to_map(tokens: Tensor, height: int, width: int) -> Tensor:
    """[B, H W, C] -> [B, C, H, W], stored channels-last."""
    return tokens.unflatten(1, (height, width)).permute(0, 3, 1, 2)

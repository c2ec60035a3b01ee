"""The transformer encoder of LDM's text models: pre-norm, learned absolute positions, unmasked attention."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ldm.modules.attention import scaled_dot_product_attention


class AbsolutePositionalEmbedding(nn.Module):
    """One learned vector for each position."""

    def __init__(self, dim: int, max_seq_len: int) -> None:
        super().__init__()
        self.emb = nn.Embedding(max_seq_len, dim)
        nn.init.normal_(self.emb.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Anything [B, N, ...] -> the vectors of its positions, [1, N, D]."""
        return self.emb.weight[None, : x.shape[1]]


class Attention(nn.Module):
    """Multi-head self-attention; the inner width heads * dim_head does not depend on ``dim``."""

    def __init__(self, dim: int, heads: int = 8, dim_head: int = 64, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.to_q = nn.Linear(dim, heads * dim_head, bias=False)
        self.to_k = nn.Linear(dim, heads * dim_head, bias=False)
        self.to_v = nn.Linear(dim, heads * dim_head, bias=False)
        self.to_out = nn.Linear(heads * dim_head, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x [B, N, D]; ``mask`` [B, N] bool is True where a token may be attended to."""
        q, k, v = (rearrange(to(x), "b n (h d) -> b h n d", h=self.heads) for to in (self.to_q, self.to_k, self.to_v))
        dropout = self.dropout if self.training else 0.0
        if mask is None and dropout == 0:
            out = scaled_dot_product_attention(q, k, v)
        else:
            keys = None if mask is None else mask[:, None, None, :]
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=keys, dropout_p=dropout)
        return self.to_out(rearrange(out, "b h n d -> b n (h d)"))


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them; [B, N, dim] -> the same."""

    def __init__(self, dim: int, mult: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Sequential(nn.Linear(dim, mult * dim), nn.GELU()),
            nn.Dropout(dropout),
            nn.Linear(mult * dim, dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Encoder(nn.Module):
    """``depth`` times attention and feed-forward, each as x + block(norm(x)).

    ``layers`` is flat: entry 2i is the i-th attention, 2i + 1 the i-th feed-forward, each [norm, block].
    """

    def __init__(
        self, dim: int, depth: int, heads: int = 8, dim_head: int = 64, ff_mult: int = 4, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.dim = dim
        self.layers = nn.ModuleList()
        for _ in range(depth):
            self.layers.append(nn.ModuleList([nn.LayerNorm(dim), Attention(dim, heads, dim_head, dropout)]))
            self.layers.append(nn.ModuleList([nn.LayerNorm(dim), FeedForward(dim, ff_mult, dropout)]))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, N, D] -> [B, N, D], without a final norm."""
        for layer in self.layers:
            norm, block = cast(nn.ModuleList, layer)
            x = x + (block(norm(x), mask) if isinstance(block, Attention) else block(norm(x)))
        return x


class TransformerWrapper(nn.Module):
    """Token ids -> token vectors + positions -> layers -> final norm (-> logits)."""

    def __init__(self, *, num_tokens: int, max_seq_len: int, attn_layers: Encoder, emb_dropout: float = 0.0) -> None:
        super().__init__()
        dim = attn_layers.dim
        self.max_seq_len = max_seq_len
        self.token_emb = nn.Embedding(num_tokens, dim)
        self.pos_emb = AbsolutePositionalEmbedding(dim, max_seq_len)
        self.emb_dropout = nn.Dropout(emb_dropout)
        self.attn_layers = attn_layers
        self.norm = nn.LayerNorm(dim)
        self.to_logits = nn.Linear(dim, num_tokens)
        nn.init.normal_(self.token_emb.weight, std=0.02)

    def forward(self, tokens: Tensor, mask: Tensor | None = None, return_embeddings: bool = False) -> Tensor:
        """Token ids [B, N] -> embeddings [B, N, D], or logits [B, N, num_tokens] when they are not asked for."""
        embeddings = self.encode_embedded(self.token_emb(tokens), mask)
        return embeddings if return_embeddings else self.to_logits(embeddings)

    def encode_embedded(self, embedded: Tensor, mask: Tensor | None = None) -> Tensor:
        """Token vectors [B, N, D] before positions -> embeddings [B, N, D]."""
        x = self.emb_dropout(embedded + self.pos_emb(embedded))
        return self.norm(self.attn_layers(x, mask))

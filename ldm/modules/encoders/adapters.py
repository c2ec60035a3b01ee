"""Small trainable parts around a frozen text encoder, which begin by changing nothing at all.

Sources: the bottleneck adapter of Houlsby et al. 2019, with its last layer at zero.
"""

from __future__ import annotations

from torch import Tensor, nn

from ldm.modules.x_transformer import Attention, FeedForward


class ZeroLinear(nn.Linear):
    """A linear layer that begins at zero, so that a residual branch which ends in it adds exactly nothing."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class BottleneckAdapter(nn.Module):
    """x + scale * up(gelu(down(norm(x)))).

    Args:
        dim: D, the width of what passes through.
        bottleneck: width inside.
        dropout: inside, in training.
        scale: of what is added; below 1 it learns more slowly.
    """

    def __init__(self, dim: int, bottleneck: int = 64, dropout: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.norm = nn.LayerNorm(dim)
        self.down = nn.Linear(dim, bottleneck)
        self.dropout = nn.Dropout(dropout)
        self.up = ZeroLinear(bottleneck, dim)

    def forward(self, x: Tensor, amount: float = 1.0) -> Tensor:
        """[..., D] -> [..., D]; ``amount`` is a further factor of what is added."""
        return x + amount * self.scale * self.up(self.dropout(nn.functional.gelu(self.down(self.norm(x)))))


class LightTransformer(nn.Module):
    """x + scale * out(layers(into(norm(x)))): a narrow transformer beside an encoder's output.

    Args:
        dim: D, the width of what passes through.
        inner: width of the layers.
        depth: attention and feed-forward pairs; 0 leaves the transformer out.
        heads: of each attention.
        dropout: in training.
        scale: of what is added; below 1 it learns more slowly.
    """

    def __init__(
        self, dim: int, inner: int = 64, depth: int = 1, heads: int = 4, dropout: float = 0.0, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.scale = scale
        self.norm = nn.LayerNorm(dim)
        self.into = nn.Linear(dim, inner)
        self.layers = nn.ModuleList(LightLayer(inner, heads, dropout) for _ in range(depth))
        self.out = ZeroLinear(inner, dim)

    def forward(self, x: Tensor, amount: float = 1.0) -> Tensor:
        """[B, N, D] -> [B, N, D]; ``amount`` is a further factor of what is added."""
        hidden = self.into(self.norm(x))
        for layer in self.layers:
            hidden = layer(hidden)
        return x + amount * self.scale * self.out(hidden)


class LightLayer(nn.Module):
    """Attention and feed-forward, each as x + block(norm(x))."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(dim), nn.LayerNorm(dim)])
        self.attention = Attention(dim, heads, max(dim // heads, 1), dropout)
        self.think = FeedForward(dim, mult=2, dropout=dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D]."""
        x = x + self.attention(self.norms[0](x))
        return x + self.think(self.norms[1](x))

"""CLIP's two transformers under the keys of OpenAI's and OpenCLIP's own files (Radford et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ldm.modules.encoders.base import EmbeddingChange
from ldm.util import ConfigError

SizesT = TypeVar("SizesT", "TextSizes", "VisionSizes")


@dataclass(frozen=True)
class TextSizes:
    """A text tower: ``width`` inside, ``embed_dim`` in the space shared with images."""

    embed_dim: int
    width: int
    heads: int
    layers: int
    context_length: int = 77
    vocab_size: int = 49408


@dataclass(frozen=True)
class VisionSizes:
    """An image tower: square pictures of ``image_size`` pixels in patches of ``patch_size``."""

    embed_dim: int
    width: int
    heads: int
    layers: int
    patch_size: int
    image_size: int = 224
    mlp_ratio: float = 4.0


TEXT_SIZES = {
    "ViT-B-32": TextSizes(512, 512, 8, 12),
    "ViT-B-16": TextSizes(512, 512, 8, 12),
    "ViT-L-14": TextSizes(768, 768, 12, 12),
    "ViT-H-14": TextSizes(1024, 1024, 16, 24),
    "ViT-g-14": TextSizes(1024, 1024, 16, 24),
    "ViT-bigG-14": TextSizes(1280, 1280, 20, 32),
}
VISION_SIZES = {
    "ViT-B-32": VisionSizes(512, 768, 12, 12, 32),
    "ViT-B-16": VisionSizes(512, 768, 12, 12, 16),
    "ViT-L-14": VisionSizes(768, 1024, 16, 24, 14),
    "ViT-H-14": VisionSizes(1024, 1280, 16, 32, 14),
    "ViT-bigG-14": VisionSizes(1280, 1664, 16, 48, 14, mlp_ratio=4.9231),
}


def sizes_of(arch: str, table: Mapping[str, SizesT], kind: type[SizesT], override: Mapping[str, Any] | None) -> SizesT:
    """The sizes that an architecture's name stands for, or those of ``override``.

    Raises:
        ConfigError: an unknown name, or an override that does not name exactly the sizes.
    """
    if override is not None:
        try:
            return kind(**override)
        except TypeError as error:
            raise ConfigError(f"'config' of the CLIP model '{arch}' does not fit: {error}") from error
    name = arch.replace("/", "-")
    if name not in table:
        raise ConfigError(f"the sizes of CLIP model '{arch}' are not known here; known: {', '.join(table)}")
    return table[name]


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x), the approximation that OpenAI's models were trained with."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class FusedAttention(nn.Module):
    """Self-attention whose q, k and v are one matrix, with biases; [B, N, width] -> the same."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.in_proj_weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(3 * width, width)))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def qkv(self, x: Tensor) -> Tensor:
        """q, k and v beside each other, [B, N, 3 width]."""
        return F.linear(x, self.in_proj_weight, self.in_proj_bias)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        return self.out_proj(
            rearrange(F.scaled_dot_product_attention(q, k, v, is_causal=self.causal), "b h n d -> b n (h d)")
        )


class FeedForward(nn.Module):
    """Two linear layers with an activation between them; [B, N, width] -> the same."""

    def __init__(self, width: int, hidden: int, activation: nn.Module) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, hidden)
        self.activation = activation
        self.c_proj = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(self.activation(self.c_fc(x)))


class ResidualBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); [B, N, width] -> the same."""

    def __init__(self, width: int, heads: int, hidden: int, causal: bool, activation: nn.Module) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = FusedAttention(width, heads, causal)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = FeedForward(width, hidden, activation)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Blocks(nn.Module):
    """A stack of residual blocks, of which the last few may be left out; [B, N, width] -> the same."""

    def __init__(self, layers: int, width: int, heads: int, hidden: int, causal: bool, quick_gelu: bool) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(
            ResidualBlock(width, heads, hidden, causal, QuickGELU() if quick_gelu else nn.GELU()) for _ in range(layers)
        )

    def forward(self, x: Tensor, skip_last: int = 0) -> Tensor:
        for block in self.resblocks[: len(self.resblocks) - skip_last]:
            x = block(x)
        return x


class TextTower(nn.Module):
    """Token ids -> states, each seeing what comes before it.

    ``logit_scale`` belongs to the files, and nothing here uses it. The image tower and the causal mask, which some
    files hold as well, are passed over when loading.
    """

    def __init__(self, sizes: TextSizes, quick_gelu: bool = False) -> None:
        super().__init__()
        width = sizes.width
        self.token_embedding = nn.Embedding(sizes.vocab_size, width)
        self.positional_embedding = nn.Parameter(nn.init.normal_(torch.empty(sizes.context_length, width), std=0.01))
        self.transformer = Blocks(sizes.layers, width, sizes.heads, 4 * width, causal=True, quick_gelu=quick_gelu)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(nn.init.normal_(torch.empty(width, sizes.embed_dim), std=width**-0.5))
        self.logit_scale = nn.Parameter(torch.full((), math.log(1 / 0.07)))
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        self.register_load_state_dict_pre_hook(_drop_unused("visual.", "attn_mask"))

    def forward(self, tokens: Tensor, skip_last: int = 0, change: EmbeddingChange | None = None) -> Tensor:
        """Token ids [B, N] -> states [B, N, width] after the final norm.

        Args:
            skip_last: how many of the last blocks are left out.
            change: may replace token vectors before positions are added.
        """
        return self.ln_final(self.transformer(self._entered(tokens, change), skip_last))

    def last_states(self, tokens: Tensor, change: EmbeddingChange | None = None) -> tuple[Tensor, Tensor]:
        """Token ids [B, N] -> states [B, N, width] before and after the last block, both without the final norm."""
        before = self.transformer(self._entered(tokens, change), skip_last=1)
        return before, self.transformer.resblocks[-1](before)

    def _entered(self, tokens: Tensor, change: EmbeddingChange | None) -> Tensor:
        embedded = self.token_embedding(tokens.clamp(min=0))  # learned words may have negative ids
        if change is not None:
            embedded = change(tokens, embedded)
        return embedded + self.positional_embedding[: tokens.shape[1]]

    def project(self, states: Tensor, tokens: Tensor) -> Tensor:
        """States [B, N, width] -> the text's place in the shared space, [B, embed_dim], read at the end marker."""
        end = tokens.argmax(dim=-1)  # the end marker has the highest id of all
        return states[torch.arange(len(states), device=states.device), end] @ self.text_projection


class VisionTower(nn.Module):
    """Pictures [B, 3, image_size, image_size], normalised, -> their place in the shared space, [B, embed_dim]."""

    def __init__(self, sizes: VisionSizes, quick_gelu: bool = False) -> None:
        super().__init__()
        width, patch = sizes.width, sizes.patch_size
        scale = width**-0.5
        self.image_size = sizes.image_size
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        self.positional_embedding = nn.Parameter(scale * torch.randn((sizes.image_size // patch) ** 2 + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        hidden = int(width * sizes.mlp_ratio)
        self.transformer = Blocks(sizes.layers, width, sizes.heads, hidden, causal=False, quick_gelu=quick_gelu)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(scale * torch.randn(width, sizes.embed_dim))

    def forward(self, pictures: Tensor) -> Tensor:
        return self.ln_post(self.states(pictures)[:, 0]) @ self.proj

    def states(self, pictures: Tensor) -> Tensor:
        """The last states of the whole picture and of each patch, [B, 1 + patches, width], without the final norm."""
        patches = rearrange(self.conv1(pictures), "b d h w -> b (h w) d")
        first = self.class_embedding.expand(len(patches), 1, -1)
        x = torch.cat([first, patches], dim=1) + self.positional_embedding
        return self.transformer(self.ln_pre(x))


class VisionOnly(nn.Module):
    """The image half of a whole CLIP file; its text half is passed over when loading. Shapes: see ``VisionTower``."""

    def __init__(self, sizes: VisionSizes, quick_gelu: bool = False) -> None:
        super().__init__()
        self.visual = VisionTower(sizes, quick_gelu)
        self.register_load_state_dict_pre_hook(
            _drop_unused(
                "positional_embedding", "text_projection", "logit_scale", "token_embedding.", "ln_final.",
                "transformer.", "attn_mask",
            )
        )  # fmt: skip

    def forward(self, pictures: Tensor) -> Tensor:
        return self.visual(pictures)


def _drop_unused(*beginnings: str) -> Any:
    """A hook that removes the entries which begin so from a state dict before it is loaded."""

    def hook(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
        unused = tuple(prefix + beginning for beginning in beginnings)
        for key in [k for k in state_dict if k.startswith(unused)]:
            del state_dict[key]

    return hook

"""The aligner: from the token states of a multilingual encoder to the sequence of the model's own English encoder.

One query for each position of the English sequence attends to the foreign tokens, so that lengths and word order may
differ. What is predicted are the English *token vectors* (before positions); the English encoder runs on them,
unchanged. Its output is then the sequence that it would give for the translation, and a learned word, which is a token
vector, enters where it always does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ldm.building.kinds import MODULE
from ldm.checkpoint import load_weights, read_metadata, save_state_dict
from ldm.checkpoint.byte_weights import in_bytes
from ldm.checkpoint.unfilled import without_values
from ldm.modules.x_transformer import FeedForward
from ldm.util import ConfigError, UserError, instantiate_from_config, parse_sizes


@dataclass(frozen=True)
class AlignerSizes:
    """What an aligner is made of; kept in the metadata of its file."""

    source_width: int  # of the multilingual encoder's states
    target_width: int  # of the English encoder's token vectors
    length: int  # positions of the English sequence
    dim: int = 192
    depth: int = 3
    heads: int = 6


class Attention(nn.Module):
    """Multi-head attention of queries [B, N, D] to a memory [B, M, D]."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.to_out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """``mask`` [B, M] bool is True where the memory may be attended to."""
        parts = (self.to_q(x), self.to_k(memory), self.to_v(memory))
        q, k, v = (rearrange(part, "b n (h d) -> b h n d", h=self.heads) for part in parts)
        keys = None if mask is None else mask[:, None, None, :]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=keys)
        return self.to_out(rearrange(out, "b h n d -> b n (h d)"))


class AlignerLayer(nn.Module):
    """The positions see the foreign tokens, then each other, then think; each as x + block(norm(x))."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(dim) for _ in range(3)])
        self.look = Attention(dim, heads)
        self.agree = Attention(dim, heads)
        self.think = FeedForward(dim)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """Positions [B, N, D], memory [B, M, D] and its mask [B, M] -> positions [B, N, D]."""
        x = x + self.look(self.norms[0](x), memory, mask)
        among = self.norms[1](x)
        x = x + self.agree(among, among)
        return x + self.think(self.norms[2](x))


class Aligner(nn.Module):
    """States [B, M, source_width] -> English token vectors [B, length, target_width], and where each token went.

    Args:
        source_width: of the multilingual encoder's token states.
        target_width: of the English encoder's token vectors.
        length: N, positions of the English sequence, markers and padding included.
        dim: width inside.
        depth: layers.
        heads: of each attention; must divide ``dim``.

    Raises:
        ConfigError: ``heads`` does not divide ``dim``.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self, source_width: int, target_width: int, length: int, dim: int = 192, depth: int = 3, heads: int = 6
    ) -> None:
        super().__init__()
        if heads < 1 or dim < 1 or dim % heads:
            raise ConfigError(f"an aligner's 'heads' must divide its 'dim', got {heads} and {dim}")
        self.sizes = AlignerSizes(source_width, target_width, length, dim, depth, heads)
        self.queries = nn.Parameter(torch.empty(length, dim))
        self.to_memory = nn.Sequential(nn.LayerNorm(source_width), nn.Linear(source_width, dim))
        self.layers = nn.ModuleList([AlignerLayer(dim, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim)
        self.to_vector = nn.Linear(dim, target_width)
        self.place = nn.Linear(dim, dim, bias=False)
        self.register_buffer("mean", torch.zeros(target_width, device="cpu"))
        self.register_buffer("scale", torch.ones((), device="cpu"))
        nn.init.normal_(self.queries, std=0.02)

    @torch.no_grad()
    def fit_to(self, table: Tensor) -> None:
        """Begin with outputs of the size that English token vectors [V, D] have."""
        self.mean.copy_(table.mean(dim=0))
        self.scale.copy_(table.std(dim=0).mean())

    def forward(self, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Token states [B, M, E] and which of them are real, [B, M] bool -> (vectors, places).

        Returns:
            vectors [B, N, D]: the English token vectors, before positions.
            places [B, M, N]: logits of the position that a foreign token's translation takes; for slots.
        """
        memory = self.to_memory(states)
        x = self.queries.expand(len(states), -1, -1)
        for layer in self.layers:
            x = layer(x, memory, mask)
        x = self.norm(x)
        places = torch.einsum("bmd,bnd->bmn", self.place(memory), x) / x.shape[-1] ** 0.5
        return self.mean + self.scale * self.to_vector(x), places


def save_aligner(
    aligner: Aligner, path: str | os.PathLike[str], encoder: str, about: Mapping[str, str], small: bool = False
) -> None:
    """Write an aligner with its sizes and the name of its multilingual encoder.

    Args:
        aligner: its weights are written in the precision that they have.
        path: a ``.safetensors`` file.
        encoder: a hub id, or a folder, relative to the file's own.
        about: further text fields, for example which model it was made for.
        small: its matrices are written in bytes.
    """
    weights = aligner.state_dict()
    metadata = {**about, "kind": "aligner", "encoder": encoder, "sizes": json.dumps(asdict(aligner.sizes))}
    save_state_dict(in_bytes(weights) if small else weights, path, metadata)


def load_aligner(path: str | os.PathLike[str]) -> tuple[Aligner, dict[str, str]]:
    """An aligner in evaluation mode, float32, and the text fields of its file.

    Raises:
        UserError: no such file, it holds no aligner, or a damaged one.
    """
    about = read_metadata(path)
    if about.get("kind") != "aligner":
        raise UserError(f"'{path}' is no aligner; scripts/export_aligner.py writes one")
    if "encoder" not in about:
        raise UserError(f"'{path}' is damaged: it does not name its multilingual encoder")
    names = [field.name for field in fields(AlignerSizes)]
    sizes = parse_sizes(about.get("sizes", ""), f"what '{path}' says of its sizes", names)
    try:
        with without_values():
            aligner: Aligner = instantiate_from_config({"target": f"{__name__}.Aligner", "params": sizes}, MODULE)
    except ConfigError as error:
        raise UserError(f"'{path}' is damaged: {error}") from error
    load_weights(aligner, path, strict=True, dtype=torch.float32)
    return aligner.eval().requires_grad_(False), about

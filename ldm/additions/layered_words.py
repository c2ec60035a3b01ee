"""Learned words with vectors of their own for every layer (extended textual inversion, Voynov et al. 2023, "P+").

The prompt is encoded once for each cross-attention layer of the UNet, every time with that layer's vectors. The
contexts travel side by side, [B, L N, D], so that guidance and samplers need not know; each layer takes its own part.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ldm.additions.words import EmbeddingManager
from ldm.modules.attention import BasicTransformerBlock
from ldm.modules.encoders.base import TokenSpace
from ldm.util import ConfigError

KIND = "layers"


@dataclass(frozen=True)
class PutVectors:
    """An EmbeddingChange that puts vectors, [n, D] or [B, n, D] for a placeholder, in the placeholders' places."""

    manager: EmbeddingManager
    vectors: Mapping[str, Tensor]

    @property
    def placeholders(self) -> tuple[str, ...]:
        return self.manager.placeholders

    def __call__(self, tokens: Tensor, embedded: Tensor) -> Tensor:
        return self.manager.put(tokens, embedded, self.vectors)


class LayeredEmbeddingManager(EmbeddingManager):
    """An EmbeddingManager with [L n, D] vectors for a placeholder, layer after layer.

    Args:
        embedder: the text encoder.
        layers: L, the transformer blocks of the UNet: 16 in Stable Diffusion and LDM text2img-large.
        words: the parameters of :class:`EmbeddingManager`.

    Raises:
        ConfigError: progressive words, which are not for layers.
        UserError: as :class:`EmbeddingManager`.
    """

    def __init__(self, embedder: TokenSpace, layers: int = 16, **words: Any) -> None:
        if layers < 1 or words.get("progressive_words"):
            raise ConfigError(f"words for layers need layers >= 1 and no progressive_words, got {layers} layers")
        self.layers = layers
        self._handles: list[Any] = []
        super().__init__(embedder, **words)

    @property
    def rows(self) -> int:
        return self.layers * self.max_vectors_per_token

    def shown(self, placeholder: str, layer: int = 0) -> Tensor:
        """The vectors [n, D] that a prompt gets in one layer."""
        return self.vectors(placeholder).unflatten(0, (self.layers, -1))[layer]

    def condition(self, encode: Callable[..., Any], text: Any) -> Tensor:
        """The contexts of all layers, [B, L N, D]."""

        parts = [LayerWords(self, layer) for layer in range(self.layers)]
        return torch.cat([encode(text, embedding_manager=part) for part in parts], dim=1)

    def install(self, network: nn.Module) -> None:
        """Have each transformer block of the network take its part of the context.

        Raises:
            ConfigError: the network has another number of blocks.
        """
        blocks = [module for module in network.modules() if isinstance(module, BasicTransformerBlock)]
        if len(blocks) != self.layers:
            raise ConfigError(f"words for layers: 'layers' must be {len(blocks)} for this network, got {self.layers}")
        for layer, block in enumerate(blocks):
            own = functools.partial(_own_part, layer=layer, layers=self.layers)
            self._handles.append(block.register_forward_pre_hook(own))

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _start_of(self, word: str, count: int) -> Tensor:
        copies = self.rows // self.max_vectors_per_token
        return super()._start_of(word, count // copies).repeat(copies, 1)

    def _about(self) -> dict[str, str]:
        return super()._about() | {"kind": KIND, "layers": str(self.layers)}


@dataclass(frozen=True)
class LayerWords:
    """The words as one layer has them: what an encoder calls between its token vectors and its positions."""

    manager: LayeredEmbeddingManager
    layer: int

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The words, which a prompt in another language is searched for."""
        return self.manager.placeholders

    def __call__(self, tokens: Tensor, embedded: Tensor) -> Tensor:
        vectors = {name: self.manager.shown(name, self.layer) for name in self.placeholders}
        return self.manager.put(tokens, embedded, vectors)


def _own_part(block: nn.Module, args: tuple[Any, ...], *, layer: int, layers: int) -> tuple[Any, ...]:
    """Tokens and contexts of all layers -> tokens and the context of one."""
    x, context = args
    return args if context is None else (x, context.chunk(layers, dim=1)[layer])

"""Learned words with vectors of their own for every layer (extended textual inversion, Voynov et al. 2023, "P+")."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ldm.additions.words import EmbeddingManager, check_layers
from ldm.checkpoint.embeddings import PER_LAYER, EmbeddingFile
from ldm.modules.encoders.base import TokenSpace
from ldm.util import UserError


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

    layers: int
    read_once = False

    def __init__(self, embedder: TokenSpace, layers: int = 16, **words: Any) -> None:
        check_layers(layers, words)
        self.layers = layers
        super().__init__(embedder, **words)

    @property
    def rows(self) -> int:
        return self.layers * self.max_vectors_per_token

    def shown(self, placeholder: str, layer: int = 0) -> Tensor:
        """The vectors [n, D] that a prompt gets in one layer."""
        return self._of_layer(self.vectors(placeholder), layer)

    def at(self, layer: int = 0, t: Tensor | None = None) -> dict[str, Tensor]:
        return {name: self.shown(name, layer) for name in self.placeholders}

    def starts(self, layer: int = 0) -> dict[str, Tensor]:
        return {name: self._of_layer(value, layer) for name, value in super().starts().items()}

    def _of_layer(self, vectors: Tensor, layer: int) -> Tensor:
        return vectors.unflatten(0, (self.layers, -1))[layer]

    def _start_of(self, word: str, count: int) -> Tensor:
        copies = self.rows // self.max_vectors_per_token
        return super()._start_of(word, count // copies).repeat(copies, 1)

    def _check_kind(self, file: EmbeddingFile, origin: object) -> None:
        if file.metadata.get("kind") != PER_LAYER or file.metadata.get("layers") != str(self.layers):
            raise UserError(f"'{origin}' holds no words for {self.layers} layers")

    def _about(self) -> dict[str, str]:
        return super()._about() | {"kind": PER_LAYER, "layers": str(self.layers)}

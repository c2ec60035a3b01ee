"""Learned words with vectors beside the text encoder's context, for every layer its own.

Before the encoder a word can say only what the encoder lets through. Here the encoder reads the word's initial word,
and behind the context that it makes of the prompt each layer has vectors of the word's own: those of "P+" (Voynov et
al. 2023) where prefixes stand (Li and Liang 2021), or of "HiPer" (Han et al. 2023) for each layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ldm.additions.placeholders import Beside
from ldm.additions.words import EmbeddingManager, check_layers
from ldm.checkpoint.embeddings import IN_CONTEXT, EmbeddingFile
from ldm.modules.encoders.base import TokenSpace
from ldm.util import ConfigError, UserError

FAINT = 0.02  # standard deviation of the vectors at first: nearly nothing, but no two alike


class ContextEmbeddingManager(EmbeddingManager):
    """An EmbeddingManager whose words have n vectors beside the context in each of L layers.

    State dict: ``string_to_param_dict.<placeholder>`` [L n, D], the vectors, layer after layer;
    ``initial_embeddings.<placeholder>`` [1, D], what the encoder reads in the word's place, which does not learn.

    Args:
        embedder: the text encoder; its context must be as wide as its token vectors.
        layers: L, the transformer blocks of the UNet: 16 in Stable Diffusion and LDM text2img-large.
        words: the parameters of :class:`EmbeddingManager`; n is at most the encoder's number of tokens.

    Raises:
        ConfigError: progressive words, which are not for layers.
        UserError: as :class:`EmbeddingManager`.
    """

    layers: int

    def __init__(self, embedder: TokenSpace, layers: int = 16, **words: Any) -> None:
        check_layers(layers, words)
        self.layers = layers
        n, most = words.get("num_vectors_per_token", 1), embedder.max_length
        if n > most:
            raise ConfigError(f"at most {most} vectors for a layer stand beside this context, got {n}")
        super().__init__(embedder, **words)

    @property
    def rows(self) -> int:
        return self.layers * self.max_vectors_per_token

    def shown(self, placeholder: str) -> Tensor:
        """The vector [1, D] that the encoder reads."""
        return self.initial_embeddings[placeholder]

    def beside(self, layer: int) -> dict[str, Beside]:
        return {name: Beside(self.vectors(name).unflatten(0, (self.layers, -1))[layer]) for name in self.placeholders}

    def changes(self) -> list[Tensor]:
        return list(self.string_to_param_dict.values())

    def add_vectors(self, vectors: Mapping[str, Tensor]) -> None:
        """Raises UserError: as ``EmbeddingManager.add_vectors``; more for a layer than the encoder has tokens."""
        most = self.embedder.max_length
        for name, value in vectors.items():
            if len(value) > self.layers * most:
                number = len(value) // self.layers
                raise UserError(f"'{name}' has {number} vectors for a layer; at most {most} stand beside this context")
        super().add_vectors(vectors)

    def take(self, files: Iterable[EmbeddingFile]) -> None:
        """Raises UserError: as ``EmbeddingManager.take``; a file does not say what the encoder is to read."""
        super().take(files)
        silent = next((name for name in self.placeholders if name not in self.initial_embeddings), None)
        if silent is not None:
            raise UserError(f"the file of '{silent}' does not say what the text encoder is to read in its place")

    def _begin(self, name: str) -> None:
        super()._begin(name)
        width = self.embedder.width
        start = torch.zeros(1, width, device="cpu") if name in self.init_words else torch.rand(1, width, device="cpu")
        self.initial_embeddings[name] = nn.Parameter(start, requires_grad=False)
        self.string_to_param_dict[name] = nn.Parameter(FAINT * torch.randn(self.rows, width, device="cpu"))

    def _belong(self, start: Tensor, vectors: Tensor) -> bool:
        return len(start) == 1 and len(vectors) % self.layers == 0

    def _check_kind(self, file: EmbeddingFile, origin: object) -> None:
        if file.metadata.get("kind") != IN_CONTEXT or file.metadata.get("layers") != str(self.layers):
            raise UserError(f"'{origin}' holds no words beside the contexts of {self.layers} layers")

    def _about(self) -> dict[str, str]:
        return super()._about() | {"kind": IN_CONTEXT, "layers": str(self.layers)}

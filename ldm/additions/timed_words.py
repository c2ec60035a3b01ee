"""Learned words that depend on the timestep and the layer (neural textual inversion, Alaluf et al. 2023, "NeTI").

A small network says, for a timestep and a layer, what is added to a placeholder's vectors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ldm.additions.layered_words import LayeredEmbeddingManager
from ldm.additions.vector_dict import VectorDict
from ldm.additions.words import Paths
from ldm.checkpoint import read_state_dict, save_state_dict
from ldm.checkpoint.embeddings import PER_TIMESTEP, read_about
from ldm.modules.diffusionmodules.util import timestep_embedding
from ldm.modules.encoders.base import TokenSpace
from ldm.util import UserError, parse_json, whole_number

PARTS = ("string_to_param_dict", "initial_embeddings")
FEATURES = 64
LAYER_SPACING = 37.0  # spreads layers over the periods that the timestep's features have


class WordMapper(nn.Module):
    """Timestep and layer -> what is added to a placeholder's n vectors; nothing before it is trained.

    Args:
        count: n.
        width: D.
        hidden: width of the two hidden layers.
    """

    def __init__(self, count: int, width: int, hidden: int = 128) -> None:
        super().__init__()
        self.count = count
        self.net = nn.Sequential(
            nn.Linear(2 * FEATURES, hidden), nn.LayerNorm(hidden), nn.SiLU(),
            nn.Linear(hidden, hidden), nn.LayerNorm(hidden), nn.SiLU(),
            nn.Linear(hidden, count * width),
        )  # fmt: skip
        for parameter in self.net[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, t: Tensor, layer: int) -> Tensor:
        """Timesteps [B] and a layer's number -> [B, n, D]."""
        place = torch.full_like(t, layer).float() * LAYER_SPACING
        features = torch.cat([timestep_embedding(t, FEATURES), timestep_embedding(place, FEATURES)], dim=-1)
        return self.net(features).unflatten(-1, (self.count, -1))


class TimedEmbeddingManager(LayeredEmbeddingManager):
    """An EmbeddingManager whose vectors are v + mapper(timestep, layer).

    State dict: besides that of the EmbeddingManager, ``mappers.<number of the placeholder>.net.*``.

    Args:
        embedder: the text encoder.
        layers: the transformer blocks of the UNet.
        hidden: width of the mappers.
        words: the parameters of ``EmbeddingManager``.
    """

    timed = True

    def __init__(self, embedder: TokenSpace, layers: int = 16, hidden: int = 128, **words: Any) -> None:
        ckpt = words.pop("embedding_manager_ckpt", None)
        super().__init__(embedder, layers, **words)
        self.hidden = hidden
        with torch.device("cpu"):  # real where the rest is built without values
            self.mappers = nn.ModuleList(
                WordMapper(self.max_vectors_per_token, embedder.width, hidden) for _ in self.placeholders
            )
        if ckpt:
            self.load(ckpt)

    @property
    def rows(self) -> int:
        return self.max_vectors_per_token

    def embedding_parameters(self) -> Iterable[nn.Parameter]:
        return [*self.string_to_param_dict.parameters(), *self.mappers.parameters()]

    def shown(self, placeholder: str, layer: int = 0) -> Tensor:
        """The vectors [n, D] without what the mapper adds."""
        return self.vectors(placeholder)

    def at(self, layer: int = 0, t: Tensor | None = None) -> dict[str, Tensor]:
        """Placeholder -> v + mapper(t, layer), [B, n, D], for timesteps t [B]; without timesteps v alone, [n, D]."""
        vectors = super().at(layer)
        if t is None:
            return vectors
        mappers = zip(self.placeholders, self.mappers, strict=True)
        return {name: vectors[name] + mapper(t, layer) for name, mapper in mappers}

    def load(self, paths: Paths, rename: Mapping[str, str] | None = None) -> None:
        """Take one file that ``save`` wrote.

        Raises:
            UserError: another kind of file, several, or other sizes than here.
        """
        path = paths if isinstance(paths, (str, os.PathLike)) else paths[0]
        about, rename = read_about(path), rename or {}
        words, sizes = _words_in(about), (str(self.layers), str(self.hidden))
        if about.get("kind") != PER_TIMESTEP or (about.get("layers"), about.get("hidden")) != sizes:
            raise UserError(f"'{path}' holds no words for timesteps with {self.layers} layers and {self.hidden} units")
        if len(words) != len(self.mappers):
            raise UserError(f"'{path}' holds the words {', '.join(words)}; the configuration must have as many")
        weights = {_renamed(key, rename): value for key, value in read_state_dict(path).items()}
        self.string_to_param_dict.clear()
        self.initial_embeddings.clear()
        self.load_state_dict(weights)
        self.init_words = {name: word for name, word in self.init_words.items() if name in self.initial_embeddings}
        kept = [rename.get(word, word) for word in words]
        vectors = {name: self.vectors(name) for name in kept}  # in the order of the mappers
        self.string_to_param_dict.clear()
        for name, value in vectors.items():
            self.string_to_param_dict[name] = value
        self._tokens.clear()

    def _of_layer(self, vectors: Tensor, layer: int) -> Tensor:
        return vectors

    @classmethod
    def read(
        cls, path: str | os.PathLike[str], embedder: TokenSpace, rename: Mapping[str, str] | None = None
    ) -> TimedEmbeddingManager:
        """What a file that ``save`` wrote holds.

        Args:
            path: the file.
            embedder: the text encoder that it is for.
            rename: placeholder in the file -> what it is called here; the key "" is the only one that there is.

        Raises:
            UserError: another kind of file, or one for another text encoder; a name that is not in it.
        """
        about = read_about(path)
        if about.get("kind") != PER_TIMESTEP:
            raise UserError(f"'{path}' holds no words for timesteps")
        words = _words_in(about)
        names = {words[0] if old == "" else old: new for old, new in (rename or {}).items()}
        missing = next((old for old in names if old not in words), None)
        if missing is not None or ("" in (rename or {}) and len(words) > 1):
            raise UserError(f"'{path}' holds {', '.join(map(repr, words))}; say which to rename: '{path}=<old>:<new>'")
        first = read_state_dict(path).get(f"{PARTS[0]}.{VectorDict.attribute_of(words[0])}")
        if first is None:
            raise UserError(f"'{path}' is damaged: it has no vectors of '{words[0]}'")
        width = first.shape[-1]
        if width != embedder.width:
            raise UserError(f"'{path}' was made for width {width}, but the loaded model is of width {embedder.width}")
        layers, hidden, count = (
            whole_number(about.get(name, ""), f"what '{path}' says of its {name}")
            for name in ("layers", "hidden", "vectors")
        )
        manager = cls(
            embedder, layers, hidden, num_vectors_per_token=count,
            placeholder_strings=[f"word {number}" for number in range(len(words))],  # until the file has named them
        )  # fmt: skip
        manager.load(path, names)
        return manager

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
        sizes = {"kind": PER_TIMESTEP, "hidden": str(self.hidden), "vectors": str(self.max_vectors_per_token),
                 "trigger": " ".join(self.placeholders), "words": json.dumps(self.placeholders)}  # fmt: skip
        save_state_dict(self.state_dict(), path, {**self._about(), **(metadata or {}), **sizes})


def _words_in(about: Mapping[str, str]) -> list[str]:
    """The placeholders of a file, in the order of its mappers."""
    if "words" not in about:
        return about.get("trigger", "").split(" ")
    words = parse_json(about["words"], "the list of words in the file")
    if not (isinstance(words, list) and words and all(isinstance(word, str) for word in words)):
        raise UserError("the list of words in the file must be a list of texts")
    return words


def _renamed(key: str, names: Mapping[str, str]) -> str:
    """A key of the state dict with its placeholder under another name."""
    part, dot, attribute = key.partition(".")
    placeholder = VectorDict.name_of(attribute)
    return part + dot + VectorDict.attribute_of(names.get(placeholder, placeholder)) if part in PARTS else key

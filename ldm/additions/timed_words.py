"""Learned words that depend on the timestep and the layer (neural textual inversion, Alaluf et al. 2023, "NeTI").

A small network says, for a timestep and a layer, what is added to a placeholder's vectors. What the samplers carry as
the condition are then token ids; they are encoded when the UNet is called, when the timestep is known.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldm.additions.layered_words import KIND as LAYERS
from ldm.additions.layered_words import LayeredEmbeddingManager, PutVectors
from ldm.additions.words import Paths
from ldm.checkpoint import read_metadata, read_state_dict, save_state_dict
from ldm.modules.diffusionmodules.util import timestep_embedding
from ldm.modules.encoders.base import TokenSpace
from ldm.util import UserError

KIND = "mapper"
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

    def condition(self, encode: Callable[..., Any], text: Any) -> Tensor:
        """Token ids [B, N]."""
        tokens = text if isinstance(text, Tensor) else self.embedder.tokenize(text)
        return tokens.to(self.embedder.vector_of(0).device)

    def at_timestep(self, encode: Callable[..., Any], condition: Any, t: Tensor) -> Any:
        """Token ids [B, N] at timesteps [B] -> the contexts of all layers, [B, L N, D]."""
        if not isinstance(condition, Tensor) or condition.is_floating_point():
            return condition
        mappers = dict(zip(self.placeholders, self.mappers, strict=True))

        def encoded(layer: int) -> Tensor:
            vectors = {name: self.vectors(name) + mapper(t, layer) for name, mapper in mappers.items()}
            return encode(condition, embedding_manager=PutVectors(self, vectors))

        return torch.cat([encoded(layer) for layer in range(self.layers)], dim=1)

    def load(self, paths: Paths, rename: Mapping[str, str] | None = None) -> None:
        """Take one file that ``save`` wrote.

        Raises:
            UserError: another kind of file, several, or other sizes than here.
        """
        path = paths if isinstance(paths, (str, os.PathLike)) else paths[0]
        about = read_metadata(path)
        words, sizes = about.get("trigger", "").split(" "), (str(self.layers), str(self.hidden))
        if about.get("kind") != KIND or (about.get("layers"), about.get("hidden")) != sizes:
            raise UserError(f"'{path}' holds no words for timesteps with {self.layers} layers and {self.hidden} units")
        if rename or len(words) != len(self.mappers):
            raise UserError(f"'{path}' holds the words {', '.join(words)}; the configuration must have as many")
        self.load_state_dict(dict(read_state_dict(path)))
        for old in [name for name in self.placeholders if name not in words]:
            del self.string_to_param_dict[old]

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
        """Write vectors and mappers; best as ``.safetensors``, whose metadata say what is inside."""
        sizes = {"kind": KIND, "hidden": str(self.hidden), "trigger": " ".join(self.placeholders),
                 "vectors": str(self.max_vectors_per_token)}  # fmt: skip
        save_state_dict(self.state_dict(), path, {**self._about(), **(metadata or {}), **sizes})


def words_of_a_kind(path: str | os.PathLike[str], embedder: TokenSpace) -> LayeredEmbeddingManager | None:
    """What a ``.safetensors`` file with words for layers or timesteps needs, loaded; None for any other file.

    Raises:
        UserError: the file cannot be read, or was made for another text encoder.
    """
    about = read_metadata(path) if Path(path).suffix == ".safetensors" and Path(path).is_file() else {}
    if about.get("kind") not in (LAYERS, KIND):
        return None
    layers = int(about["layers"])
    if about["kind"] == LAYERS:
        manager = LayeredEmbeddingManager(embedder, layers)
    else:
        names = about["trigger"].split(" ")
        count = int(about["vectors"])
        manager = TimedEmbeddingManager(
            embedder, layers, int(about["hidden"]), placeholder_strings=names, num_vectors_per_token=count
        )
    manager.load(path)
    return manager

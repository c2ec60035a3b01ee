"""One condition of several encoders: Stable Diffusion XL's two texts and its sizes, a film's picture and its motion.

What an encoder gives belongs to a part by its number of axes: a vector [B, D], a context [B, N, D] or channels
[B, C, h, w]. The parts of all encoders are put side by side in their order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ldm.modules.diffusionmodules.util import timestep_embedding
from ldm.modules.encoders.base import AbstractEncoder, EmbeddingChange, TextEncoder
from ldm.util import ConfigError, UserError, instantiate_from_config, nearest

# number of axes of what an encoder gives -> the part that it belongs to, and the axis along which it is put there
PART_OF_AXES = {2: "vector", 3: "crossattn", 4: "concat"}
JOINED_ALONG = {"vector": 1, "crossattn": 2, "concat": 1}
TEXT = "txt"


class ConcatTimestepEmbedderND(AbstractEncoder):
    """Numbers [B, n] (or [B]) as sinusoidal features, each with ``outdim`` of them, [B, n outdim]."""

    def __init__(self, outdim: int) -> None:
        super().__init__()
        self.outdim = outdim

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, None] if x.dim() == 1 else x
        if x.dim() != 2:
            raise UserError(f"sizes and scores are numbers, some for each picture: [B, n], got {list(x.shape)}")
        return timestep_embedding(x.flatten(), self.outdim).reshape(len(x), -1)


class LabelEmbedder(AbstractEncoder):
    """Class labels [B] -> vectors [B, embed_dim], or contexts [B, 1, embed_dim] with ``add_sequence_dim``."""

    def __init__(self, embed_dim: int, n_classes: int = 1000, add_sequence_dim: bool = False) -> None:
        super().__init__()
        self.n_classes, self.add_sequence_dim = n_classes, add_sequence_dim
        self.embedding = nn.Embedding(n_classes, embed_dim)

    def forward(self, labels: Tensor) -> Tensor:
        labels = torch.as_tensor(labels).to(self.embedding.weight.device).long().reshape(-1)
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < self.n_classes:
            raise UserError(f"class labels must lie between 0 and {self.n_classes - 1}, got {labels.tolist()}")
        vectors = self.embedding(labels)
        return vectors[:, None] if self.add_sequence_dim else vectors


@dataclass(frozen=True)
class Entry:
    """What a configuration says of an encoder besides its class.

    Attributes:
        input_key: the entry of a batch that it encodes; ``input_keys``: several, as so many arguments.
        is_trainable: whether it learns with the model.
        ucg_rate: how often, in training, what it gives is 0 (or what it gets is ``legacy_ucg_value``).
    """

    input_key: str | None = None
    input_keys: tuple[str, ...] = ()
    is_trainable: bool = False
    ucg_rate: float = 0.0
    legacy_ucg_value: Any = None

    @property
    def keys(self) -> tuple[str, ...]:
        return self.input_keys if self.input_key is None else (self.input_key,)

    @classmethod
    def of(cls, node: Mapping[str, Any]) -> Entry:
        """The entry of an item of ``emb_models``.

        Raises:
            ConfigError: it does not say what the encoder gets, or something that is not known.
        """
        said = {key: value for key, value in node.items() if key not in ("target", "params")}
        known = cls.__dataclass_fields__
        unknown = [key for key in said if key not in known]
        if unknown:
            raise ConfigError(f"an item of 'emb_models' has no '{unknown[0]}'; {nearest(unknown[0], known)}")
        keys = said.pop("input_keys", None) or ()
        entry = cls(**said, input_keys=(keys,) if isinstance(keys, str) else tuple(keys))
        if not entry.keys:
            raise ConfigError(f"the item '{node.get('target')}' of 'emb_models' needs 'input_key', what it encodes")
        return entry


class GeneralConditioner(AbstractEncoder):
    """The encoders of ``emb_models``, and the parts of a condition that they make of a batch.

    Those that do not learn stay in evaluation mode, whatever ``train`` says.
    """

    def __init__(self, emb_models: Sequence[Mapping[str, Any]]) -> None:
        """``emb_models``: ``{target, params}`` nodes with the fields of ``Entry`` beside.

        Raises:
            ConfigError: as ``Entry.of``.
        """
        super().__init__()
        self.entries = [Entry.of(node) for node in emb_models]
        self.embedders = nn.ModuleList(
            instantiate_from_config({key: node[key] for key in ("target", "params") if node.get(key) is not None})
            for node in emb_models
        )
        for entry, embedder in zip(self.entries, self.embedders, strict=True):
            if not entry.is_trainable:
                embedder.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> GeneralConditioner:
        super().train(mode)
        for entry, embedder in zip(self.entries, self.embedders, strict=True):
            if not entry.is_trainable:
                embedder.eval()
        return self

    @property
    def input_keys(self) -> tuple[str, ...]:
        """The entries of a batch that are encoded, each once, in their order."""
        return tuple(dict.fromkeys(key for entry in self.entries for key in entry.keys))

    @property
    def dropped_keys(self) -> tuple[str, ...]:
        """The entries that are left out at random in training, which is what guidance leads away from."""
        return tuple(key for entry in self.entries if entry.ucg_rate > 0 for key in entry.keys)

    @property
    def text_encoders(self) -> list[TextEncoder]:
        """The encoders of texts, in their order."""
        return [embedder for embedder in self.embedders if isinstance(embedder, TextEncoder)]

    @property
    def text_places(self) -> list[int]:
        """Where among all encoders those of texts are."""
        return [place for place, embedder in enumerate(self.embedders) if isinstance(embedder, TextEncoder)]

    def forward(
        self,
        batch: Mapping[str, Any],
        force_zero_embeddings: Collection[str] = (),
        words: Mapping[int, EmbeddingChange] | None = None,
        drop: bool = False,
    ) -> dict[str, Tensor]:
        """The parts "crossattn", "vector" and "concat", as far as the encoders give them.

        Args:
            batch: by the entries' keys: texts (or token ids), numbers [B, n], pictures [B, C, H, W].
            force_zero_embeddings: keys of which everything that is made is 0.
            words: what each encoder, by its place, calls between its token vectors and its layers.
            drop: leave parts out at random, as the entries say; for training.

        Raises:
            UserError: the batch lacks something.
        """
        pieces: dict[str, list[Tensor]] = {}
        for place, _ in enumerate(self.embedders):
            for piece in self._outputs(place, batch, (words or {}).get(place), drop):
                zero = bool(set(self.entries[place].keys) & set(force_zero_embeddings))
                pieces.setdefault(part_of(piece), []).append(torch.zeros_like(piece) if zero else piece)
        rows = max((len(piece) for found in pieces.values() for piece in found), default=0)
        return {part: joined(found, rows, JOINED_ALONG[part]) for part, found in pieces.items()}

    def changed(
        self,
        parts: Mapping[str, Tensor],
        batch: Mapping[str, Any],
        force_zero_embeddings: Collection[str] = (),
        words: Mapping[int, EmbeddingChange] | None = None,
    ) -> dict[str, Tensor]:
        """Parts that ``forward`` made, [B, ...], with what is made of ``batch`` in place of what they have for that.

        Args:
            batch: some of the entries' keys, with one row or B.
            force_zero_embeddings: keys of which everything becomes 0, whatever the batch has.
        """
        made: dict[str, list[Tensor]] = {part: [] for part in parts}
        start = dict.fromkeys(parts, 0)
        for place, entry in enumerate(self.entries):
            zero = bool(set(entry.keys) & set(force_zero_embeddings))
            new = not zero and all(key in batch for key in entry.keys)
            fresh = list(self._outputs(place, batch, (words or {}).get(place))) if new else []
            for number, (part, width) in enumerate(self._layout(place)):
                old = parts[part].narrow(JOINED_ALONG[part], start[part], width)
                start[part] += width
                made[part].append(torch.zeros_like(old) if zero else fresh[number] if new else old)
        return {part: joined(found, len(parts[part]), JOINED_ALONG[part]) for part, found in made.items()}

    def _outputs(
        self, place: int, batch: Mapping[str, Any], words: EmbeddingChange | None = None, drop: bool = False
    ) -> Iterator[Tensor]:
        """What one encoder gives for a batch, in training some rows of it 0."""
        entry, embedder = self.entries[place], self.embedders[place]
        missing = [key for key in entry.keys if key not in batch]
        if missing:
            raise UserError(f"the condition lacks '{missing[0]}', which this model is conditioned on")
        given = [batch[key] for key in entry.keys]
        dropping = drop and entry.ucg_rate > 0
        if dropping and entry.legacy_ucg_value is not None:
            given = [with_some_replaced(value, entry.ucg_rate, entry.legacy_ucg_value) for value in given]
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._may_learn(embedder, words)):
            if isinstance(embedder, TextEncoder):
                pieces: Any = embedder.outputs(given[0], words)
            else:
                pieces = embedder(*given)
        pieces = pieces if isinstance(pieces, (tuple, list)) else (pieces,)
        self._layouts[place] = [(part_of(piece), piece.shape[JOINED_ALONG[part_of(piece)]]) for piece in pieces]
        for piece in pieces:
            if dropping and entry.legacy_ucg_value is None:
                kept = torch.rand(len(piece), device="cpu") >= entry.ucg_rate
                piece = piece * kept.to(piece).reshape(-1, *[1] * (piece.dim() - 1))
            yield piece

    @staticmethod
    def _may_learn(embedder: nn.Module, words: EmbeddingChange | None) -> bool:
        return words is not None or any(parameter.requires_grad for parameter in embedder.parameters())

    @property
    def _layouts(self) -> dict[int, list[tuple[str, int]]]:
        """What each encoder gives, (part, width), as far as it has been asked; the same at every call."""
        return self.__dict__.setdefault("_seen", {})

    def _layout(self, place: int) -> list[tuple[str, int]]:
        if place not in self._layouts:
            raise UserError("a condition is changed by the conditioner that made it, and this one has made none yet")
        return self._layouts[place]

    @property
    def context_widths(self) -> list[int]:
        """How many of a context's channels are each encoder's, in their order, once it has made one."""
        pieces = [piece for place in sorted(self._layouts) for piece in self._layouts[place]]
        return [width for part, width in pieces if part == "crossattn"]

    def get_unconditional_conditioning(
        self,
        batch_c: Mapping[str, Any],
        batch_uc: Mapping[str, Any] | None = None,
        force_uc_zero_embeddings: Collection[str] | None = None,
        force_cond_zero_embeddings: Collection[str] | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The parts of a batch and those of another (or of the same), as older code asks for both."""
        parts = self(batch_c, force_cond_zero_embeddings or ())
        return parts, self(batch_c if batch_uc is None else batch_uc, force_uc_zero_embeddings or ())


def text_encoders_of(encoder: Any) -> list[TextEncoder]:
    """The encoders of texts of a model's ``cond_stage_model``: itself, those of a conditioner, or none."""
    if isinstance(encoder, GeneralConditioner):
        return encoder.text_encoders
    return [encoder] if isinstance(encoder, TextEncoder) else []


def part_of(piece: Tensor) -> str:
    """The part that a piece belongs to.

    Raises:
        UserError: it has another number of axes.
    """
    if piece.dim() not in PART_OF_AXES:
        raise UserError(f"an encoder gives a vector, a context or channels: 2, 3 or 4 axes, got {list(piece.shape)}")
    return PART_OF_AXES[piece.dim()]


def joined(pieces: Sequence[Tensor], rows: int, dim: int) -> Tensor:
    """Pieces with one row or ``rows`` side by side."""
    return torch.cat([piece.expand(rows, *piece.shape[1:]) for piece in pieces], dim=dim)


def with_some_replaced(values: Any, rate: float, stand_in: Any) -> Any:
    """A batch's values of one key, some of them, at random, replaced."""
    replaced = (torch.rand(len(values), device="cpu") < rate).tolist()
    if isinstance(values, Tensor):
        mask = torch.tensor(replaced, device=values.device).reshape(-1, *[1] * (values.dim() - 1))
        return torch.where(mask, torch.as_tensor(stand_in, device=values.device, dtype=values.dtype), values)
    return [stand_in if gone else value for value, gone in zip(values, replaced, strict=True)]

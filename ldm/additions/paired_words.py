"""Learned words on several text encoders at once, as Stable Diffusion XL needs them: vectors for each encoder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ldm.additions.base import Undo, replace_module
from ldm.additions.vocabulary import SeveralWords, Words
from ldm.additions.words import EmbeddingManager, Paths
from ldm.checkpoint.embeddings import EmbeddingFile, read_embedding, write_embedding
from ldm.modules.encoders.base import TokenSpace
from ldm.modules.encoders.conditioner import GeneralConditioner
from ldm.util import ConfigError, UserError


class PairedWords(Words):
    """The same words in the vocabularies of a conditioner's text encoders, a set for each, in their order.

    Args:
        conditioner: whose encoders these are for.
        sets: one for each of its encoders of texts.
    """

    step_suffix = ".safetensors"
    last_suffixes: ClassVar[tuple[str, ...]] = (".safetensors",)

    def __init__(self, conditioner: GeneralConditioner, sets: Sequence[Words]) -> None:
        super().__init__()
        self._conditioner = (conditioner,)  # in a tuple, so that its weights are not part of this module's state
        self.sets = nn.ModuleList(sets)

    @property
    def each(self) -> list[Words]:
        """The sets."""
        return list(self.sets)  # type: ignore[arg-type]

    @property
    def by_place(self) -> dict[int, Words]:
        """Which set each of the conditioner's encoders gets, by the encoder's place in it."""
        return dict(zip(self._conditioner[0].text_places, self.each, strict=True))

    @property
    def embedder(self) -> TokenSpace:
        return self.each[0].embedder

    @property
    def placeholders(self) -> tuple[str, ...]:
        return self.each[0].placeholders

    def token(self, placeholder: str) -> int:
        return self.each[0].token(placeholder)

    def at(self, layer: int = 0, t: Tensor | None = None) -> dict[str, Tensor]:
        return self.each[0].at(layer, t)

    def starts(self, layer: int = 0) -> dict[str, Tensor]:
        return self.each[0].starts(layer)

    def learned(self) -> Sequence[nn.Parameter]:
        return [parameter for words in self.each for parameter in words.learned()]

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for words in self.each:
                stack.enter_context(words.paused())
            yield

    def attach(self, model: Any, scale: float = 1.0) -> Undo:
        """Put these words beside those that the model has, encoder by encoder; see ``Words.attach``.

        Raises:
            UserError: they are for other text encoders, or it is not known where their training began.
        """
        encoders = encoders_of(model.cond_stage_model)
        widths = [encoder.width for encoder in encoders], [words.embedder.width for words in self.each]
        if widths[0] != widths[1]:
            raise UserError(f"the words {_named(self.placeholders)} have widths {widths[1]}, the encoders {widths[0]}")
        unknown = [name for words in self.each for name in self.placeholders if name not in words.starts()]
        if scale != 1 and unknown:
            raise UserError(
                f"nobody knows from which word the training of '{unknown[0]}' began, so a scale of {scale:g} means "
                "nothing; use it at 1"
            )
        before: PairedWords | None = model.embedding_manager
        if before is None and scale == 1:
            return replace_module(model, "embedding_manager", self)
        had = [[] if before is None else [words] for words in (before.each if before is not None else self.each)]
        sets = [
            SeveralWords([*own, words], [*[1.0] * len(own), scale]) for own, words in zip(had, self.each, strict=True)
        ]
        joined = PairedWords(model.cond_stage_model, sets)
        joined.files = {**({} if before is None else before.files), **self.files}
        return replace_module(model, "embedding_manager", joined)

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
        """Raises UserError, always: words of several files are not written into one."""
        raise UserError(f"words of several files are not written into one, '{path}'")


class PairedEmbeddingManager(PairedWords):
    """Learned vectors of a word for each text encoder; ``personalization_config`` of SDXL names it.

    State dict: ``sets.<encoder>.`` before the keys of ``EmbeddingManager``.

    Args:
        embedder: the conditioner whose text encoders the word is for.
        placeholder_strings: one word, because a file of words for two encoders holds one; for files that were read any.
        initializer_words: what it begins from.
        num_vectors_per_token: n.
        embedding_manager_ckpt: a file to go on with.

    Raises:
        ConfigError: several words.
        UserError: the model has no conditioner with text encoders; or as ``EmbeddingManager``.
    """

    def __init__(
        self,
        embedder: GeneralConditioner,
        placeholder_strings: Sequence[str] | None = None,
        initializer_words: Sequence[str] | None = None,
        num_vectors_per_token: int = 1,
        embedding_manager_ckpt: str | None = None,
        per_image_tokens: bool = False,
        progressive_words: bool = False,
    ) -> None:
        if len(placeholder_strings or ()) > 1 or per_image_tokens or progressive_words:
            raise ConfigError("words on two text encoders: one word a run, and neither per_image_tokens nor "
                              "progressive_words")  # fmt: skip
        encoders = encoders_of(embedder)
        options: dict[str, Any] = {"num_vectors_per_token": num_vectors_per_token}
        own = (placeholder_strings, initializer_words)
        super().__init__(embedder, [EmbeddingManager(encoder, *own, **options) for encoder in encoders])
        if embedding_manager_ckpt:
            self.load(embedding_manager_ckpt)

    @property
    def managers(self) -> list[EmbeddingManager]:
        """The sets."""
        return list(self.sets)  # type: ignore[arg-type]

    def take(self, files: Mapping[Path, EmbeddingFile]) -> None:
        """Have the words of some files, and no others.

        Raises:
            UserError: a file was made for other text encoders.
        """
        for path, file in files.items():
            check_widths(file, [manager.width for manager in self.managers], path)
        for place, manager in enumerate(self.managers):
            manager.take(part(file, place) for file in files.values())
        self.files = {name: path for path, file in files.items() for name in file.vectors}

    def load(self, paths: Paths) -> None:
        """Have the words of one file or several; see ``take``."""
        each = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
        self.take({Path(path): read_embedding(path) for path in each})

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
        """Write the word: ``clip_l`` and ``clip_g``, as others have it, or as usual for a single encoder.

        Raises:
            UserError: there is none, or several, or no space.
        """
        if not self.placeholders:
            raise UserError(f"there is no learned word to write to '{path}'")
        first, *others = [
            {name: manager.vectors(name).detach().float().cpu() for name in self.placeholders}
            for manager in self.managers
        ]
        words = [f"{name}: {word}" for name, word in self.managers[0].init_words.items()]
        about = {"name": self.placeholders[0], "family": "sdxl" if others else self.embedder.family}
        about |= {"init_words": ", ".join(words)} if words else {}
        file = EmbeddingFile(first, about | dict(metadata or {}), second=others[0] if others else {})
        write_embedding(path, file)

    def embedding_to_coarse_loss(self) -> Tensor:
        """How far the vectors are from their start, for each encoder; see ``EmbeddingManager``."""
        return torch.stack([manager.embedding_to_coarse_loss().mean() for manager in self.managers])

    def get_embedding_norms_squared(self) -> Tensor:
        """|v|^2 of every vector, encoder by encoder: [number of vectors]."""
        return torch.cat([manager.get_embedding_norms_squared() for manager in self.managers])

    @property
    def string_to_param_dict(self) -> Mapping[str, Tensor]:
        """The vectors of the first encoder, by placeholder."""
        return dict(self.managers[0].string_to_param_dict.items())


def encoders_of(conditioner: Any) -> list[Any]:
    """The text encoders that words are for.

    Raises:
        UserError: the model has no conditioner, or none of texts in it.
    """
    encoders = conditioner.text_encoders if isinstance(conditioner, GeneralConditioner) else []
    if not encoders:
        raise UserError("words for several text encoders are for models with a conditioner that has some, as SDXL's")
    return encoders


def check_widths(file: EmbeddingFile, widths: Sequence[int], origin: object) -> None:
    """Raises UserError when a file's words are not for encoders of these widths."""
    theirs = [file.width, *({values.shape[1] for values in file.second.values()})]
    if theirs != list(widths):
        here = " and ".join(map(str, widths))
        ours = f"Stable Diffusion XL's text encoders (widths {here})" if len(widths) > 1 else f"one of width {here}"
        raise UserError(f"'{origin}' was made for {file.made_for}, but the loaded model has {ours}")


def part(file: EmbeddingFile, place: int) -> EmbeddingFile:
    """What a file says to the encoder at a place, as a file for one encoder."""
    if place == 0:
        return EmbeddingFile(file.vectors, file.metadata, file.initial, file.tokens, file.format)
    return EmbeddingFile(file.second, file.metadata, format=file.format)


def _named(placeholders: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in placeholders)

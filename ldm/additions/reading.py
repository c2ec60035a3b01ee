"""Additions from the files that a person names.

Words: ``path``, ``path=<new name>``, ``path=<old>:<new>``; LoRAs: ``path``, ``path=<scale>``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ldm.additions.base import Addition
from ldm.additions.context_words import ContextEmbeddingManager
from ldm.additions.layered_words import LayeredEmbeddingManager
from ldm.additions.lora.lora import INTERPOLATE, Lora
from ldm.additions.lora.scales import Scales, parse_lora
from ldm.additions.paired_words import PairedEmbeddingManager
from ldm.additions.text_adapters import TextAdapters
from ldm.additions.timed_words import TimedEmbeddingManager
from ldm.additions.vocabulary import Words
from ldm.additions.words import EmbeddingManager
from ldm.checkpoint import EmbeddingFile
from ldm.checkpoint.embedding_sources import Source, parse_source, read_embeddings
from ldm.checkpoint.embeddings import IN_CONTEXT, PER_LAYER, PER_TIMESTEP, read_about
from ldm.modules.encoders.base import TextEncoder
from ldm.modules.encoders.conditioner import GeneralConditioner
from ldm.runs import ADAPTERS, LORAS, given_or_latest
from ldm.util import UserError

log = logging.getLogger(__name__)

FOR_LAYERS: dict[str, type[LayeredEmbeddingManager | ContextEmbeddingManager]] = {
    PER_LAYER: LayeredEmbeddingManager, IN_CONTEXT: ContextEmbeddingManager,
}  # fmt: skip


def read_additions(
    model: Any,
    embedding_path: str | Sequence[str] | None = None,
    adapter_path: str | os.PathLike[str] | None = None,
    lora: str | Sequence[str] | None = None,
    dora: str = INTERPOLATE,
) -> list[Addition]:
    """What the files hold, for a model; the model itself is not changed (see ``applied``).

    Args:
        model: a LatentDiffusion, whose text encoder the files must fit.
        embedding_path: files of learned words of any kind; ``=`` renames what is inside.
        adapter_path: a file of text adapters.
        lora: LoRA files or folders, each with a scale or without one; see ``ldm.additions.lora.scales.parse_lora``.
        dora: how scales act with DoRA, see ``Lora.read``.

    Returns:
        The LoRAs; the adapters, if any; then the words: ordinary ones of all files as one addition, each other file
        as one, and those that lie in LoRA files. ``files`` of these say which file a word is from.

    Raises:
        UserError: a file is no embedding, was made for another encoder, or two files have one placeholder; or the model
            is not conditioned by text.
    """
    loras = read_loras(model, [parse_lora(text) for text in as_list(lora)], dora)
    return [*loras, *read_others(model, embedding_path, adapter_path, loras)]


def read_others(
    model: Any,
    embedding_path: str | Sequence[str] | None,
    adapter_path: str | os.PathLike[str] | None,
    loras: Sequence[Lora],
) -> list[Addition]:
    """What is no LoRA: adapters, words, and the words in the files of LoRAs.

    Raises:
        UserError: as ``read_additions``.
    """
    additions: list[Addition] = []
    if adapter_path:
        additions.append(TextAdapters.read(given_or_latest(adapter_path, ADAPTERS), model))
    sources = as_list(embedding_path)
    words = read_words(sources, model.cond_stage_model) if sources else []
    words += words_of(loras, model.cond_stage_model)
    _check_names(words)
    return [*additions, *words]


def as_list(given: str | Sequence[str] | None) -> list[str]:
    """One text, several, or none, as a list."""
    return [given] if isinstance(given, str) else list(given or ())


def read_loras(
    model: Any, sources: Sequence[tuple[Path, Scales]], dora: str = INTERPOLATE, strict: bool = True
) -> list[Lora]:
    """LoRAs of files, each read once however often it is named.

    Args:
        strict: refuse scales for what a file does not change.

    Raises:
        UserError: as ``Lora.read``.
    """
    read: dict[Path, Lora] = {}
    found = []
    for given, scales in sources:
        path = given_or_latest(given, LORAS)
        if path not in read:
            read[path] = Lora.read(path, model, dora=dora)
        found.append(read[path].scaled(scales))
        if strict:
            found[-1].check_scales()
    return found


def words_of(loras: Sequence[Lora], encoder: Any) -> list[Words]:
    """The words that lie in the files of LoRAs, for a text encoder.

    Raises:
        UserError: they are for another encoder.
    """
    found: list[Words] = []
    if isinstance(encoder, GeneralConditioner):
        if any(lora.file.words for lora in loras):
            log.warning("the words in LoRA files are for one text encoder; this model has a conditioner: not used")
        return []
    for path, words in {lora.file.path: lora.file.words for lora in loras}.items():
        if not words:
            continue
        if not isinstance(encoder, TextEncoder):
            raise UserError(f"the model takes no text, so it has no use for the words of '{path}'")
        file = EmbeddingFile({name: value.float() for name, value in words.items()}, {"name": next(iter(words))})
        file.check_width(encoder.width, origin=path)
        found.append(_made(EmbeddingManager(encoder), {path: file}).to(encoder.device).eval())
    return found


def read_words(sources: Sequence[str], encoder: Any) -> list[Words]:
    """The words of files, for a text encoder, in evaluation mode where it is.

    Raises:
        UserError: as ``read_additions``.
    """
    if isinstance(encoder, GeneralConditioner):
        return [_paired(sources, encoder)]
    if not isinstance(encoder, TextEncoder):
        raise UserError(f"the model takes no text, so it has no use for the words of '{sources[0]}'")
    parsed = {text: parse_source(text) for text in sources}
    timed = [text for text, source in parsed.items() if read_about(source.path).get("kind") == PER_TIMESTEP]
    files = read_embeddings([text for text in sources if text not in timed])
    for path, file in files.items():
        file.check_width(encoder.width, origin=path)
    kinds = {path: FOR_LAYERS.get(file.metadata.get("kind", "")) for path, file in files.items()}
    plain = {path: file for path, file in files.items() if kinds[path] is None}
    found: list[Words] = [_made(EmbeddingManager(encoder), plain)] if plain else []
    for path, kind in kinds.items():
        if kind is not None:
            found.append(_made(kind(encoder, _layers(path, files[path])), {path: files[path]}))
    found += [_timed(parsed[text], encoder) for text in timed]
    _check_names(found)
    return [words.to(encoder.device).eval() for words in found]


def _paired(sources: Sequence[str], conditioner: GeneralConditioner) -> Words:
    """The words of files for a conditioner's text encoders, all together."""
    manager = PairedEmbeddingManager(conditioner)
    manager.take(read_embeddings(sources))
    return manager.to(conditioner.text_encoders[0].device).eval()


def _made(manager: EmbeddingManager, files: Mapping[Path, EmbeddingFile]) -> EmbeddingManager:
    manager.take(files.values())
    manager.files = {name: path for path, file in files.items() for name in file.vectors}
    return manager


def _layers(path: Path, file: EmbeddingFile) -> int:
    said = file.metadata.get("layers", "")
    if not said.isdecimal() or int(said) < 1 or any(len(v) % int(said) for v in file.vectors.values()):
        raise UserError(f"'{path}' says it has words for '{said}' layers, but its vectors are not as many for each")
    return int(said)


def _timed(source: Source, encoder: TextEncoder) -> TimedEmbeddingManager:
    manager = TimedEmbeddingManager.read(source.path, encoder, source.names)
    manager.files = dict.fromkeys(manager.placeholders, source.path)
    return manager


def _check_names(found: Sequence[Words]) -> None:
    """``read_embeddings`` has looked at the others."""
    owner: dict[str, Path] = {}
    for words in found:
        for name, path in words.files.items():
            if name in owner:
                raise UserError(
                    f"'{path}' and '{owner[name]}' both hold '{name}'; give it another name in one of them: "
                    f"'{path}=<new>'"
                )
            owner[name] = path

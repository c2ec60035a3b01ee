"""Additions from the files that a person names: ``path``, ``path=<new name>``, ``path=<old>:<new>``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ldm.additions.base import Addition
from ldm.additions.layered_words import LayeredEmbeddingManager
from ldm.additions.text_adapters import TextAdapters
from ldm.additions.timed_words import TimedEmbeddingManager
from ldm.additions.vocabulary import Words
from ldm.additions.words import EmbeddingManager
from ldm.checkpoint import EmbeddingFile
from ldm.checkpoint.embedding_sources import Source, parse_source, read_embeddings
from ldm.checkpoint.embeddings import PER_LAYER, PER_TIMESTEP, read_about
from ldm.modules.encoders.base import TextEncoder
from ldm.runs import ADAPTERS, given_or_latest
from ldm.util import UserError


def read_additions(
    model: Any,
    embedding_path: str | Sequence[str] | None = None,
    adapter_path: str | os.PathLike[str] | None = None,
) -> list[Addition]:
    """What the files hold, for a model; the model itself is not changed (see ``applied``).

    Args:
        model: a LatentDiffusion, whose text encoder the files must fit.
        embedding_path: files of learned words of any kind; ``=`` renames what is inside.
        adapter_path: a file of text adapters.

    Returns:
        The adapters, if any, then the words: ordinary ones of all files as one addition, each other file as one.
        ``files`` of these say which file a word is from.

    Raises:
        UserError: a file is no embedding, was made for another encoder, or two files have one placeholder; or the model
            is not conditioned by text.
    """
    additions: list[Addition] = []
    if adapter_path:
        additions.append(TextAdapters.read(given_or_latest(adapter_path, ADAPTERS), model))
    sources = [embedding_path] if isinstance(embedding_path, str) else list(embedding_path or ())
    if sources:
        additions += read_words(sources, model.cond_stage_model)
    return additions


def read_words(sources: Sequence[str], encoder: Any) -> list[Words]:
    """The words of files, for a text encoder, in evaluation mode where it is.

    Raises:
        UserError: as ``read_additions``.
    """
    if not isinstance(encoder, TextEncoder):
        raise UserError(f"the model takes no text, so it has no use for the words of '{sources[0]}'")
    parsed = {text: parse_source(text) for text in sources}
    timed = [text for text, source in parsed.items() if read_about(source.path).get("kind") == PER_TIMESTEP]
    files = read_embeddings([text for text in sources if text not in timed])
    for path, file in files.items():
        file.check_width(encoder.width, origin=path)
    layered = {path: file for path, file in files.items() if file.metadata.get("kind") == PER_LAYER}
    plain = {path: file for path, file in files.items() if path not in layered}
    found: list[Words] = [_made(EmbeddingManager(encoder), plain)] if plain else []
    for path, file in layered.items():
        manager = LayeredEmbeddingManager(encoder, _layers(path, file))
        found.append(_made(manager, {path: file}))
    found += [_timed(parsed[text], encoder) for text in timed]
    _check_names(found)
    return [words.to(encoder.device).eval() for words in found]


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

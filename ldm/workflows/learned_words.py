"""Learned words for a loaded model: several files at once, and which of the words the prompts use."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ldm.additions.timed_words import words_of_a_kind
from ldm.additions.words import EmbeddingManager
from ldm.checkpoint import read_embeddings
from ldm.modules.encoders.base import TextEncoder
from ldm.modules.encoders.multilingual import Multilingual
from ldm.util import UserError

log = logging.getLogger(__name__)


def load_words(model: Any, sources: Sequence[str]) -> dict[str, Path]:
    """Give a model the words of embedding files, in place of those it has.

    Args:
        model: a LatentDiffusion; it gets an ``EmbeddingManager`` if it has none.
        sources: files, each ``path``, ``path=<new>`` or ``path=<old>:<new>``.

    Returns:
        placeholder -> the file that it came from.

    Raises:
        UserError: a file is no embedding, was made for another width, or two files have one placeholder; a placeholder
            is not one token for this model; or the model is not conditioned by text.
    """
    encoder = model.cond_stage_model
    if not isinstance(encoder, TextEncoder):
        raise UserError(f"the model takes no text, so it has no use for the words of '{sources[0]}'")
    special = words_of_a_kind(sources[0], encoder) if len(sources) == 1 else None
    if special is not None:
        model.learn_words(special.to(encoder.device).eval())
        return {name: Path(sources[0]) for name in special.placeholders}
    files = read_embeddings(sources)
    for path, file in files.items():
        file.check_width(encoder.width, origin=path)
    manager = EmbeddingManager(encoder) if model.embedding_manager is None else model.embedding_manager
    manager.set_vectors({name: vectors for file in files.values() for name, vectors in file.vectors.items()})
    manager.to(encoder.device)
    model.embedding_manager = manager.eval()
    return {name: path for path, file in files.items() for name in file.vectors}


def report_words(model: Any, words: dict[str, Path], prompts: Sequence[str]) -> dict[str, list[str]]:
    """Log which placeholders each prompt uses, and warn about those that none does.

    What lies beyond the encoder's last token is not used: such a prompt is cut there.

    Returns:
        prompt -> its placeholders.
    """
    used = {}
    for prompt in dict.fromkeys(prompts):
        used[prompt] = used_in(model, prompt, words)
        log.info("'%s' uses %s", prompt, ", ".join(f"'{name}'" for name in used[prompt]) or "no learned word")
    for name in words.keys() - {name for names in used.values() for name in names}:
        log.warning("no prompt uses '%s' of '%s': put it into a prompt, or leave the file out", name, words[name])
    return used


def used_in(model: Any, prompt: str, words: Iterable[str]) -> list[str]:
    """The words that a prompt uses; in a language that is translated, those that are written in it."""
    encoder = model.cond_stage_model
    if isinstance(encoder, Multilingual) and encoder.is_foreign(prompt):
        return [name for name in words if name in prompt]
    present = set(encoder.tokenize(prompt).flatten().tolist())
    return [name for name in words if model.embedding_manager.token(name) in present]

"""Learned words for a loaded model: several files at once, and which of the words the prompts use."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ldm.additions.base import Addition
from ldm.additions.reading import read_words
from ldm.additions.vocabulary import Words
from ldm.modules.encoders.multilingual import Multilingual

log = logging.getLogger(__name__)


def load_words(model: Any, sources: Sequence[str]) -> dict[str, Path]:
    """Give a model the words of embedding files, in place of those it has.

    Args:
        model: a LatentDiffusion; it keeps them.
        sources: files, each ``path``, ``path=<new>`` or ``path=<old>:<new>``.

    Returns:
        placeholder -> the file that it came from.

    Raises:
        UserError: as ``read_additions``.
    """
    words = read_words(sources, model.cond_stage_model)
    if model.embedding_manager is not None:
        model.embedding_manager.remove()
        model.embedding_manager = None
    for one in words:
        one.attach(model)  # for good
    return files_of(words)


def files_of(additions: Sequence[Addition]) -> dict[str, Path]:
    """Placeholder -> the file that it came from, of the words among some additions."""
    return {name: path for one in additions if isinstance(one, Words) for name, path in one.files.items()}


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

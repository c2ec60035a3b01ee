"""Which learned words the prompts of a request use."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ldm.additions.base import Addition
from ldm.additions.vocabulary import Words
from ldm.modules.encoders.conditioner import text_encoders_of
from ldm.modules.encoders.long_prompts import chunks_of
from ldm.modules.encoders.multilingual import Multilingual

log = logging.getLogger(__name__)


def files_of(additions: Sequence[Addition]) -> dict[str, Path]:
    """Placeholder -> the file that it came from, of the words among some additions."""
    return {name: path for one in additions if isinstance(one, Words) for name, path in one.files.items()}


def report_words(model: Any, additions: Sequence[Addition], prompts: Sequence[str]) -> dict[str, list[str]]:
    """Log which placeholders each prompt uses, and warn about those that none does; nothing where there are no words.

    What lies beyond the encoder's last token is not used: such a prompt is cut there.

    Returns:
        prompt -> its placeholders.
    """
    words, used = files_of(additions), {}
    for prompt in dict.fromkeys(prompts) if words else ():
        used[prompt] = used_in(model, prompt, words)
        log.info("'%s' uses %s", prompt, ", ".join(f"'{name}'" for name in used[prompt]) or "no learned word")
    for name in words.keys() - {name for names in used.values() for name in names}:
        log.warning("no prompt uses '%s' of '%s': put it into a prompt, or leave the file out", name, words[name])
    return used


def used_in(model: Any, prompt: str, words: Iterable[str]) -> list[str]:
    """The words that a prompt uses; in a language that is translated, those that are written in it."""
    encoder = text_encoders_of(model.cond_stage_model)[0]
    if isinstance(encoder, Multilingual) and encoder.is_foreign(prompt):
        return [name for name in words if name in prompt]
    words = list(words)
    chunks = chunks_of(encoder, prompt, model.embedding_manager) if encoder.in_chunks else None
    present = set(itertools.chain(*chunks) if chunks else encoder.tokenize(prompt, words).flatten().tolist())
    return [name for name in words if encoder.placeholder_id(name) in present]

"""Prompts in other languages: which way they go, and what they are read as."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from typing import Any

from ldm.languages import detect_language
from ldm.modules.encoders.learned_words import placeholders_of
from ldm.modules.encoders.multilingual import AUTO, Multilingual
from ldm.util import UserError

log = logging.getLogger(__name__)

SHOWN = 8  # prompts whose reading is said


def speaking(model: Any, language: str) -> contextlib.AbstractContextManager[None]:
    """Within the block the model's prompts are in ``language``: "auto" looks at each of them.

    Raises:
        UserError: the model reads English only.
    """
    encoder = model.cond_stage_model
    if isinstance(encoder, Multilingual):
        return encoder.speaking(language)
    if language not in (AUTO, "en"):
        raise UserError(f"this model reads English only, not '{language}'; docs/languages.md says how to teach it")
    return contextlib.nullcontext()


def report_reading(model: Any, prompts: Sequence[str]) -> None:
    """Say what English the first foreign prompts are read as, or that this model does not read them."""
    encoder = model.cond_stage_model
    if not isinstance(encoder, Multilingual):
        foreign = [prompt for prompt in prompts if detect_language(prompt) != "en"]
        if foreign:
            log.warning("this model reads English only; '%s' will mean little to it", foreign[0])
        return
    foreign = list(dict.fromkeys(prompt for prompt in prompts if encoder.is_foreign(prompt)))[:SHOWN]
    if not foreign:
        return
    learned = model.embedding_manager
    words = placeholders_of(learned)
    for prompt, english in zip(foreign, encoder.translate(foreign, words), strict=True):
        log.info("'%s' is read as '%s'", prompt, english)

"""Prompts in other languages: which way they go, and what they are read as."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator, Sequence
from typing import Any

from ldm.languages import detect_language
from ldm.modules.encoders.learned_words import placeholders_of
from ldm.modules.encoders.multilingual import AUTO, Multilingual
from ldm.util import UserError

log = logging.getLogger(__name__)

SHOWN = 8  # prompts whose reading is said
_SPARE = re.compile(r"\[unused\d+\]")  # a piece of the vocabulary that stands for no word yet


@contextlib.contextmanager
def speaking(model: Any, language: str, prompts: Sequence[str] = ()) -> Iterator[None]:
    """Within the block the model's prompts are in ``language``: "auto" looks at each of them.

    What English the first foreign ones of ``prompts`` are read as is said, or that this model does not read them.

    Raises:
        UserError: the model reads English only.
    """
    encoder = model.cond_stage_model
    if isinstance(encoder, Multilingual):
        with encoder.speaking(language):
            foreign = list(dict.fromkeys(prompt for prompt in prompts if encoder.is_foreign(prompt)))[:SHOWN]
            learned = model.embedding_manager
            words = placeholders_of(learned)
            for prompt, english in zip(foreign, encoder.translate(foreign, words) if foreign else (), strict=True):
                log.info("'%s' is read as '%s'", prompt, _SPARE.sub("?", english))
            yield
        return
    if language not in (AUTO, "en"):
        raise UserError(f"this model reads English only, not '{language}'; docs/languages.md says how to teach it")
    strange = next((prompt for prompt in prompts if detect_language(prompt) != "en"), None)
    if strange is not None:
        log.warning("this model reads English only; '%s' will mean little to it", strange)
    yield

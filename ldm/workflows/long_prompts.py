"""Prompts that are longer than the model's text encoder: what of them is not read, or reading them in chunks."""

from __future__ import annotations

import bisect
import contextlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ldm.modules.encoders.base import TextEncoder
from ldm.modules.encoders.conditioner import text_encoders_of
from ldm.modules.encoders.long_prompts import BREAK, chunks_of
from ldm.util import UserError

log = logging.getLogger(__name__)

SHOWN = 400  # letters of what is cut off
_WORD = re.compile(r"\S+\s*")


@contextlib.contextmanager
def read_whole(model: Any, wanted: bool) -> Iterator[None]:
    """Within the block prompts are read in chunks, if that is wanted.

    Raises:
        UserError: the model's text encoder does not do that.
    """
    encoders = text_encoders_of(model.cond_stage_model)
    if wanted and not encoders:
        raise UserError("--long_prompts is for models that read prompts")
    with contextlib.ExitStack() as stack:
        for encoder in encoders if wanted else ():
            stack.enter_context(encoder.whole_prompts())
        yield


def check_long(model: Any, prompts: Sequence[str], others: Mapping[str, bool]) -> None:
    """Refuse what does not go together with a prompt of several chunks.

    Args:
        prompts: all that is read.
        others: what else there may be in the request, and whether it is there.

    Raises:
        UserError: there is such a thing, and a prompt is that long.
    """
    words = model.embedding_manager
    if not in_chunks(model):
        return
    encoder = text_encoders_of(model.cond_stage_model)[0]
    if not any(len(chunks_of(encoder, text, words)) > 1 for text in prompts):
        return
    own = words is not None and bool(words.layers or words.timed)
    found = {**others, "words for layers or timesteps": own}
    clash = next((name for name, there in found.items() if there), None)
    if clash is not None:
        raise UserError(f"a prompt in several chunks (--long_prompts) does not go together with {clash}")


def report_cut(model: Any, prompts: Sequence[str]) -> None:
    """Say which prompts are longer than what the model reads, and what of them is not read."""
    words = model.embedding_manager
    encoder = next(iter(text_encoders_of(model.cond_stage_model)), None)
    if encoder is None or encoder.tokenizer is None or encoder.in_chunks:
        return
    for prompt in dict.fromkeys(prompts):
        if encoder.fits(prompt, words):
            continue
        lost = beyond(encoder, prompt, words)
        shown = lost if len(lost) <= SHOWN else lost[:SHOWN] + "..."
        cure = "; --long_prompts reads it all" if encoder.reads_chunks else ""
        log.warning("a prompt is longer than what the model reads, and ends without '%s'%s", shown, cure)


def beyond(encoder: TextEncoder, prompt: str, words: Any = None) -> str:
    """The words of a prompt from the first that is not read, or not to its end."""
    ends = [match.end() for match in _WORD.finditer(prompt)]
    kept = bisect.bisect_left(ends, True, key=lambda end: not encoder.fits(prompt[:end], words))
    return prompt[ends[kept - 1] if kept else 0 :].strip()


def in_chunks(model: Any) -> bool:
    """Whether the model reads prompts in chunks now."""
    return any(encoder.in_chunks for encoder in text_encoders_of(model.cond_stage_model))


def without_breaks(model: Any, text: str) -> str:
    """A prompt without what ends a chunk, which is no word where there are chunks."""
    return BREAK.sub(" ", text) if in_chunks(model) else text

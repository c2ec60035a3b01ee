"""Captions that are longer than the text encoder reads: said once in a run."""

from __future__ import annotations

import logging
from typing import Any, Protocol, runtime_checkable

import pytorch_lightning as pl

log = logging.getLogger(__name__)

CHECKED = 100_000  # different captions; a run with more is not looked at for longer


@runtime_checkable
class ReadsText(Protocol):
    """A text encoder of so many tokens."""

    tokenizer: Any

    @property
    def max_length(self) -> int: ...

    def fits(self, text: str, words: Any = None) -> bool: ...


@runtime_checkable
class Captioned(Protocol):
    """A model that is conditioned on the text that a batch has under a key."""

    cond_stage_model: Any
    cond_stage_key: str
    embedding_manager: Any


class CaptionLengths(pl.Callback):
    """Warns about the first caption whose end is not read, and says no more."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.done = False

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        encoder = pl_module.cond_stage_model if isinstance(pl_module, Captioned) else None
        if self.done or not isinstance(encoder, ReadsText) or encoder.tokenizer is None or len(self.seen) > CHECKED:
            self.done = True
            return
        captions = batch.get(pl_module.cond_stage_key) if isinstance(batch, dict) else None
        for caption in captions if isinstance(captions, list) else ():
            if not isinstance(caption, str) or caption in self.seen:
                continue
            self.seen.add(caption)
            # a token has a letter at least, but for learned words of several vectors
            if len(caption) > encoder.max_length // 8 and not encoder.fits(caption, pl_module.embedding_manager):
                self.done = True
                if trainer.is_global_zero:
                    log.warning("captions are longer than the %d tokens that the text encoder reads, and their ends "
                                "are not learned; the first such is '%s'", encoder.max_length - 2, caption)  # fmt: skip
                return

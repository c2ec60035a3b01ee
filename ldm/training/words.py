"""Learning words (textual inversion): their files, from time to time and at the end."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pytorch_lightning as pl

from ldm.training.checkpoints import between_updates

log = logging.getLogger(__name__)

LAST = "embeddings"


class Words(Protocol):
    """Learned words, which can be written."""

    placeholders: tuple[str, ...]

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None: ...


@runtime_checkable
class WordLearner(Protocol):
    """A model with learned words, or None where its configuration has none."""

    embedding_manager: Words | None


class EmbeddingSaver(pl.Callback):
    """Writes ``embeddings_gs-<step>.pt`` every so many steps, ``embeddings.pt`` and ``.safetensors`` at the end.

    Args:
        folder: the run's folder of checkpoints.
        every_n_steps: optimizer steps between two files; 0 for none but the last.
        base_model: what the words were learned on, for the files' metadata.
    """

    def __init__(self, folder: str | os.PathLike[str], every_n_steps: int = 500, base_model: str = "") -> None:
        self.folder = Path(folder)
        self.every_n_steps = every_n_steps
        self.base_model = base_model
        self._saved = -1

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if self.every_n_steps and step % self.every_n_steps == 0 and step != self._saved and between_updates(trainer):
            self._saved = step
            self._save(trainer, pl_module, f"{LAST}_gs-{step}.pt")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for suffix in (".pt", ".safetensors"):
            self._save(trainer, pl_module, LAST + suffix)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """An interrupted run leaves its words, too."""
        self.on_train_end(trainer, pl_module)

    def _save(self, trainer: pl.Trainer, pl_module: pl.LightningModule, name: str) -> None:
        words = pl_module.embedding_manager if isinstance(pl_module, WordLearner) else None
        if words is None or not words.placeholders or not trainer.is_global_zero:
            return
        metadata = {"steps": str(trainer.global_step)}
        words.save(self.folder / name, metadata | ({"base_model": self.base_model} if self.base_model else {}))

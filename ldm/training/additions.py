"""What a run has learned on top of a model, as small files: from time to time and at the end."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytorch_lightning as pl

from ldm.additions.base import Addition
from ldm.training.averages import averaged
from ldm.training.checkpoints import between_updates
from ldm.training.learner import learned_by
from ldm.util import ConfigError, UserError

log = logging.getLogger(__name__)


class AdditionFiles(pl.Callback):
    """Writes each addition that learns: ``<its name>_gs-<step>`` every so many steps, ``<its name>`` at the end.

    Words are ``embeddings_gs-<step>.pt``, ``embeddings.pt`` and ``embeddings.safetensors``; adapters of the text
    encoder ``adapters_gs-<step>.safetensors`` and ``adapters.safetensors``. What another callback of this class names
    is left to that one. In a run that keeps averages of what learns (``ldm.training.averages``) the files are of those.

    Args:
        folder: the run's folder of checkpoints; None: where the Trainer has its own.
        every_n_steps: optimizer steps between two files; 0 for none but the last.
        base_model: what was learned on, for the files' metadata.
        only: names of the additions that are written; None for all.

    Raises:
        ConfigError: ``every_n_steps`` is negative.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        every_n_steps: int = 500,
        base_model: str = "",
        only: Sequence[str] | None = None,
    ) -> None:
        if every_n_steps < 0:
            raise ConfigError(f"every_n_steps must not be negative, got {every_n_steps}")
        self.folder = None if folder is None else Path(folder)
        self.every_n_steps = every_n_steps
        self.base_model = base_model
        self.only = only
        self._saved = -1
        self._finished = False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raises ConfigError: what is to be written does not learn."""
        there = {addition.file_name for addition in learned_by(pl_module)}
        missing = [name for name in self.only or () if name not in there]
        if missing:
            raise ConfigError(f"the model learns no {missing[0]} that could be saved")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        step = trainer.global_step
        due = step and self.every_n_steps and step % self.every_n_steps == 0
        if due and step != self._saved and between_updates(trainer):
            self._saved = step
            with averaged(trainer, pl_module) as notes:
                for addition in self._mine(trainer, pl_module):
                    self._save(trainer, addition, f"{addition.file_name}_gs-{step}{addition.step_suffix}", notes)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._finished = True
        with averaged(trainer, pl_module) as notes:
            for addition in self._mine(trainer, pl_module):
                for suffix in addition.last_suffixes:
                    self._save(trainer, addition, addition.file_name + suffix, notes)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A run that had its last step before it was killed leaves its files when it is resumed."""
        if not self._finished:
            self.on_train_end(trainer, pl_module)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """An interrupted run leaves what it has learned, too."""
        try:
            self.on_train_end(trainer, pl_module)
        except UserError as error:
            log.warning("%s", error)

    def _mine(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Iterator[Addition]:
        others = [one for one in trainer.callbacks if isinstance(one, AdditionFiles) and one is not self]  # type: ignore[attr-defined]
        taken = {name for one in others for name in one.only or ()}
        for addition in learned_by(pl_module):
            wanted = addition.file_name not in taken if self.only is None else addition.file_name in self.only
            if wanted and addition.learned():
                yield addition

    def _save(
        self, trainer: pl.Trainer, addition: Addition, name: str, notes: Callable[[Addition], dict[str, str]]
    ) -> None:
        if trainer.is_global_zero:
            if not all(bool(learned.isfinite().all()) for learned in addition.learned()):
                raise UserError(f"'{name}' was not written: what was learned is not finite any more (NaN or inf)")
            metadata = {"steps": str(trainer.global_step), **notes(addition)}
            metadata |= {"base_model": self.base_model} if self.base_model else {}
            folder = self.folder or Path(trainer.checkpoint_callback.dirpath)  # type: ignore[union-attr]
            addition.save(folder / name, metadata)

"""Training checkpoints: written in one piece, read without running anything, never in the middle of an update."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import CheckpointIO

from ldm.checkpoint import read_file, write_file
from ldm.util import UserError


@runtime_checkable
class AccumulatesByHand(Protocol):
    """A model with several optimisers, which adds up the gradients of batches itself."""

    accumulate_grad_batches: int
    between_updates: bool
    automatic_optimization: bool


def between_updates(trainer: pl.Trainer) -> bool:
    """Whether the last batch completed an optimizer step: gradients half accumulated are in no checkpoint."""
    model: Any = trainer.lightning_module
    by_hand = isinstance(model, AccumulatesByHand) and not model.automatic_optimization
    return bool(model.between_updates) if by_hand else not trainer.fit_loop._should_accumulate()


class AtomicCheckpointIO(CheckpointIO):
    """Saves beside the old file and renames, so that a crash while saving leaves the old checkpoint whole.

    Args:
        folder: of the run; nothing is written when it has been deleted. None: wherever it is asked for.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write it in one piece; ``storage_options`` has no meaning here.

        Raises:
            UserError: a full disk or an unwritable folder; the old file survives. Or the run's folder is gone.
        """
        if self.folder is not None and not self.folder.is_dir():
            raise UserError(f"the folder of the run, '{self.folder}', was deleted while the run was going on")
        write_file(checkpoint, path)

    def load_checkpoint(self, path: Any, map_location: Any | None = None, weights_only: bool | None = None) -> Any:
        """What was saved, on the CPU; ``map_location`` and ``weights_only`` mean nothing: no code in the file is run.

        Raises:
            UserError: as ``ldm.checkpoint.read_file``.
        """
        return read_file(path)

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


class TrainCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint with the same parameters, which always keeps one ``last.ckpt``."""

    def __init__(self, dirpath: str | Path | None = None, **params: Any) -> None:
        params.setdefault("save_last", True)
        params.setdefault("enable_version_counter", False)  # a resumed run goes on with the same files
        super().__init__(dirpath=dirpath, **params)

    def _should_skip_saving_checkpoint(self, trainer: pl.Trainer) -> bool:
        return super()._should_skip_saving_checkpoint(trainer) or not between_updates(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Whatever the interval, the end of the run is kept as ``last.ckpt``."""
        if self.save_last and not self._should_skip_saving_checkpoint(trainer):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

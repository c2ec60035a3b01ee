"""``lightning.additions_ema: 0.99``: averages of what learns on top of a model, which its files and previews show."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig

from ldm.additions.averages import Averages
from ldm.training.checkpoints import between_updates
from ldm.training.learner import learned_by
from ldm.util import ConfigError


class AdditionAverages(pl.Callback):
    """Keeps ``Averages`` of what learns, over optimizer steps; the run goes as it would without.

    Args:
        decay: as ``Averages``.

    Raises:
        ConfigError: the decay is no number between 0 and 1.
    """

    def __init__(self, decay: float) -> None:
        if isinstance(decay, bool) or not isinstance(decay, int | float) or not 0 < decay < 1:
            raise ConfigError(f"lightning.additions_ema is {str(decay)[:80]!r}; it must be between 0 and 1, as in 0.99")
        self.averages = Averages(float(decay))
        self._restored: dict[str, Any] = {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on with the averages of the run that goes on.

        Raises:
            ConfigError: nothing learns on top of the model.
        """
        if not learned_by(pl_module):
            raise ConfigError(
                "lightning.additions_ema averages words, adapters and LoRA, of which this model learns none; the "
                "average of a model is model.params.use_ema"
            )
        self.averages.restore(learned_by(pl_module), self._restored)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if between_updates(trainer):
            self.averages.update(learned_by(pl_module))

    def state_dict(self) -> dict[str, Any]:
        return self.averages.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = state_dict


@contextlib.contextmanager
def averaged(trainer: pl.Trainer, pl_module: pl.LightningModule) -> Iterator[dict[str, str]]:
    """Within the block what learns on a model is its average, in a run that keeps one.

    Yields:
        Notes for what is written in the block: ``ema_decay``, where there is an average.
    """
    with contextlib.ExitStack() as undone:
        notes = {}
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, AdditionAverages):
                undone.enter_context(callback.averages.applied(learned_by(pl_module)))
                notes = {"ema_decay": str(callback.averages.decay)}
        yield notes


def averages_asked_for(lightning: DictConfig) -> list[pl.Callback]:
    """The callback that ``lightning.additions_ema`` asks for, if it does.

    Raises:
        ConfigError: as ``AdditionAverages``.
    """
    decay = lightning.get("additions_ema")
    return [] if decay is None else [AdditionAverages(decay)]

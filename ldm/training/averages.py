"""``lightning.additions_ema: 0.99``: averages of what learns on top of a model, which its files and previews show."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig

from ldm.additions.averages import Averages
from ldm.additions.base import Addition
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
def averaged(trainer: pl.Trainer, pl_module: pl.LightningModule) -> Iterator[Callable[[Addition], dict[str, str]]]:
    """Within the block what learns on a model is its average, in a run that keeps one.

    Yields:
        The notes for the file of an addition that is written in the block: ``ema_decay``, where it is an average.
    """
    kept = [callback.averages for callback in trainer.callbacks if isinstance(callback, AdditionAverages)]  # type: ignore[attr-defined]
    with contextlib.ExitStack() as undone:
        for averages in kept:
            undone.enter_context(averages.applied(learned_by(pl_module)))
        yield lambda addition: next(({"ema_decay": str(one.decay)} for one in kept if one.has(addition)), {})


def averages_asked_for(lightning: DictConfig) -> list[pl.Callback]:
    """The callback that ``lightning.additions_ema`` asks for, if it does.

    Raises:
        ConfigError: as ``AdditionAverages``.
    """
    decay = lightning.get("additions_ema")
    return [] if decay is None else [AdditionAverages(decay)]

"""What happens around a run: its folder, its end by Ctrl-C, and the cost of an epoch on a GPU."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf

from ldm.stopping import Wish, postponed
from ldm.training.checkpoints import between_updates
from ldm.training.config import START, last_start
from ldm.util import atomic_write

log = logging.getLogger(__name__)


class StopRequestedError(Exception):
    """The run was asked to stop; its state is in the checkpoint that the message names."""


class SetupCallback(pl.Callback):
    """Makes the run folder and writes the resolved configuration into it, so that it can be trained from again.

    Args:
        resume: the run folder exists already.
        now: time stamp in front of the file names.
        logdir, ckptdir, cfgdir: the run folder, and its folders of checkpoints and configurations.
        config: the model and data sections, resolved but for values of the environment.
        lightning_config: the lightning section, likewise.
    """

    def __init__(
        self,
        resume: str | bool,
        now: str,
        logdir: str | os.PathLike[str],
        ckptdir: str | os.PathLike[str],
        cfgdir: str | os.PathLike[str],
        config: dict[str, Any],
        lightning_config: dict[str, Any],
    ) -> None:
        self.resume = resume
        self.now = now
        self.logdir, self.ckptdir, self.cfgdir = Path(logdir), Path(ckptdir), Path(cfgdir)
        self.config = config
        self.lightning_config = lightning_config

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit" or not trainer.is_global_zero:
            return
        for folder in (self.logdir, self.ckptdir, self.cfgdir, self.logdir / "images"):
            folder.mkdir(parents=True, exist_ok=True)
        start = {START: last_start(self.cfgdir) + 1}
        self._save({**self.config, **start}, "project")
        self._save({"lightning": self.lightning_config, **start}, "lightning")

    def _save(self, config: dict[str, Any], name: str) -> None:
        with atomic_write(self.cfgdir / f"{self.now}-{name}.yaml") as path:
            OmegaConf.save(OmegaConf.create(config), path)


class StopOnSignal(pl.Callback):
    """Ctrl-C or SIGTERM: finish the step, save ``last.ckpt``, stop. SIGUSR1: save and go on.

    A second one stops at once. All processes of a distributed run decide together, so one signal is enough. While the
    end of the run is being saved, it is saved to its end.
    """

    def __init__(self, ckptdir: str | os.PathLike[str]) -> None:
        self.path = Path(ckptdir) / "last.ckpt"
        self.wish = Wish()
        self._save = False
        self._block = contextlib.ExitStack()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.path = trainer.strategy.broadcast(self.path)  # clocks, and with them folder names, may differ
        said = "stopping after this step; once more stops at once, without saving"
        self.wish = self._block.enter_context(postponed(said))
        if threading.current_thread() is threading.main_thread():
            before = signal.signal(signal.SIGUSR1, self._on_save)
            self._block.callback(signal.signal, signal.SIGUSR1, before or signal.SIG_DFL)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.close()

    def close(self) -> None:
        """From now on signals do what they did before."""
        self._block.close()

    def _on_save(self, *_: Any) -> None:
        self._save = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Do what the signals since the last optimiser step ask for, after an optimiser step.

        Raises:
            StopRequestedError: the run is to stop; ``last.ckpt`` has been written.
        """
        if not between_updates(trainer):
            return
        stop, save = self._agreed(trainer, bool(self.wish.number)), self._agreed(trainer, self._save)
        if stop or save:
            trainer.save_checkpoint(self.path)
            self._save = False
        if stop:
            raise StopRequestedError(str(self.path))

    @staticmethod
    def _agreed(trainer: pl.Trainer, wish: bool) -> bool:
        return trainer.strategy.reduce_boolean_decision(wish, all=False) if trainer.world_size > 1 else wish


class CUDACallback(pl.Callback):
    """Logs the time of each epoch and the highest memory use, on a CUDA device; elsewhere it does nothing."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.start = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)
            torch.cuda.synchronize(pl_module.device)
            self.start = self.clock()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
            memory = torch.cuda.max_memory_allocated(pl_module.device) / 2**20
            log.info("epoch took %.2f s, at most %.0f MiB", self.clock() - self.start, memory)

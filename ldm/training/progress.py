"""How far a run is: in one short line for people, and in a small file for programs."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import pytorch_lightning as pl
from torch import Tensor

from ldm.util import atomic_write

FILE = "progress.json"
ON_SCREEN, IN_A_FILE = 0.5, 15.0  # seconds between two lines


class ProgressLine(pl.callbacks.ProgressBar):
    """``step 120/300  loss 0.066  2.1 it/s  eta 1:25``, on a terminal always in the same place, else now and then anew.

    Args:
        stream: where it goes; standard error.
        clock: seconds.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.stream, self.clock = stream or sys.stderr, clock
        self.enabled = True
        self._began = self._shown = 0.0
        self._first = 0
        self._outputs: Any = None  # of the last step
        self._length = 0

    def disable(self) -> None:
        """Say nothing: this is not the first process."""
        self.enabled = False

    def enable(self) -> None:
        self.enabled = True

    @property
    def on_screen(self) -> bool:
        return self.stream.isatty()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._began, self._first, self._shown = self.clock(), trainer.global_step, -math.inf

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._outputs = outputs
        if self.enabled and self.clock() - self._shown >= (ON_SCREEN if self.on_screen else IN_A_FILE):
            self._show(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.enabled:
            self._show(trainer)
            self._leave()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if self.enabled:
            self._leave()

    def _show(self, trainer: pl.Trainer) -> None:
        now = self.clock()
        total = trainer.max_steps if trainer.max_steps > 0 else trainer.estimated_stepping_batches
        rate = (trainer.global_step - self._first) / max(now - self._began, 1e-9)
        line = progress_line(trainer.global_step, total, loss_of(self._outputs, trainer.progress_bar_metrics), rate)
        self.stream.write(f"\r{line:<{self._length}}" if self.on_screen else f"{line}\n")
        self.stream.flush()
        self._shown, self._length = now, len(line)

    def _leave(self) -> None:
        """What is written next begins a line of its own."""
        if self.on_screen and self._length:
            self.stream.write("\n")
        self._length = 0


class ProgressFile(pl.Callback):
    """Keeps ``progress.json`` in the run's folder: {"step": 120, "steps": 300, "loss": 0.066}, new twice a second."""

    def __init__(self) -> None:
        self._written = -math.inf

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if time.monotonic() - self._written >= ON_SCREEN:
            self._write(trainer, loss_of(outputs, trainer.progress_bar_metrics))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write(trainer, loss_of(None, trainer.progress_bar_metrics))

    def _write(self, trainer: pl.Trainer, loss: float | None) -> None:
        if not trainer.is_global_zero:
            return
        total = trainer.max_steps if trainer.max_steps > 0 else trainer.estimated_stepping_batches
        about = {"step": trainer.global_step, "steps": int(total) if math.isfinite(total) else 0, "loss": loss}
        with atomic_write(Path(trainer.default_root_dir) / FILE) as temporary:
            temporary.write_text(json.dumps(about), encoding="utf-8")
        self._written = time.monotonic()


def progress_line(step: int, total: float, loss: float | None, rate: float) -> str:
    """The line of a step; ``total`` may be infinite, ``rate`` is in steps a second."""
    parts = [f"step {step}/{int(total)}" if math.isfinite(total) else f"step {step}"]
    if loss is not None:
        parts.append(f"loss {loss:.3g}")
    if rate > 0:
        parts.append(f"{rate:.1f} it/s" if rate >= 0.95 else f"{1 / rate:.1f} s/it")
        if math.isfinite(total):
            parts.append(f"eta {duration((total - step) / rate)}")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """1:25, or 2:03:00 from an hour on."""
    minutes, rest = divmod(max(round(seconds), 0), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def loss_of(outputs: Any, metrics: Mapping[str, Any]) -> float | None:
    """The loss of a step: the simple one where a model logs it, else what it minimises."""
    for name in ("train/loss_simple_step", "train/loss_simple", "train/loss_step", "train/loss", "aeloss"):
        if name in metrics:
            return float(metrics[name])
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else None
    return float(loss) if isinstance(loss, Tensor) else None

"""The course of a run's loss as a picture."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
from numpy.typing import NDArray
from pytorch_lightning.loggers import CSVLogger

from ldm.run_metrics import LOSS, read_metric, running_mean, tables_of
from ldm.util import atomic_write

log = logging.getLogger(__name__)


class LossCurve(pl.Callback):
    """Draws ``loss.png`` beside the metrics when training ends: each logged value, and their running mean.

    Args:
        metric: the column of ``metrics.csv``, with or without the ending ``_step``.
        window: values in the running mean, at most; a tenth of what there is in short runs.
    """

    def __init__(self, metric: str = LOSS, window: int = 100) -> None:
        self.metric = metric
        self.window = window

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        folders = [Path(logger.log_dir) for logger in trainer.loggers if isinstance(logger, CSVLogger)]
        if not trainer.is_global_zero or not folders:
            return
        for logger in trainer.loggers:
            logger.save()
        steps, values = read_metric(tables_of(folders[0].parents[1]), self.metric)
        if len(steps) > 1:
            draw(steps, values, min(self.window, max(len(steps) // 10, 1)), self.metric, folders[0] / "loss.png")


def draw(steps: NDArray[np.float64], values: NDArray[np.float64], window: int, metric: str, path: Path) -> None:
    """Write the picture."""
    from matplotlib.figure import Figure  # imported here: it takes a second, and only the end of a run needs it

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(steps, values, ".", markersize=2, alpha=0.35, color="tab:blue")
    axes.plot(steps, running_mean(values, window), color="tab:red", label=f"mean of {window}")
    axes.set_xlabel("step")
    axes.set_ylabel(metric)
    axes.set_ylim(0, float(np.quantile(values, 0.99)) * 1.1 or None)
    axes.legend()
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=120)

"""What a run has logged, out of its metrics.csv."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LOSS = "train/loss_simple"


def tables_of(run: Path) -> list[Path]:
    """The tables of a run, one for each time that it was started, in that order."""
    return sorted(run.glob("metrics/version_*/metrics.csv"), key=lambda path: path.stat().st_mtime)


def read_metric(tables: Sequence[Path], metric: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values out of one or more metrics.csv; a step that was done again counts as it was the last time."""
    found: dict[int, float] = {}
    for table in tables:
        with table.open(newline="") as file:
            for row in csv.DictReader(file):
                text = row.get(f"{metric}_step") or row.get(metric)
                if text:
                    found[int(row["step"])] = float(text)
    steps = sorted(found)
    return np.array(steps, np.float64), np.array([found[step] for step in steps])


def running_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """The mean of each value and the window - 1 before it; of fewer at the beginning."""
    sums = np.concatenate([[0.0], values.cumsum()])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)

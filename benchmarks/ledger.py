"""Measurements one by one in a CSV file, so that a long benchmark may be stopped and go on; and tables of them."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ldm.world.scoring import wilson


class Ledger:
    """The rows of a CSV file, each with what was measured (its key) and what came out.

    Attributes:
        rows: as text, those of the file first.
        folder: where the file is, for what belongs to it.
    """

    def __init__(self, path: Path, until: float) -> None:
        """``until``: of ``time.monotonic``, after which nothing more is measured."""
        self.path, self.folder, self.until = path, path.parent, until
        self.rows: list[dict[str, str]] = []
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                self.rows = list(csv.DictReader(file))

    def add(self, key: Mapping[str, Any], measure: Callable[[], Mapping[str, Any]]) -> None:
        """Measure and write down a row, unless there is one of this key, or time is over."""
        wanted = {name: str(value) for name, value in key.items()}
        if time.monotonic() >= self.until or any(wanted.items() <= row.items() for row in self.rows):
            return
        row = wanted | {name: str(value) for name, value in measure().items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(row))
            if not self.rows:
                writer.writeheader()
            writer.writerow(row)
        self.rows.append(row)


def table(rows: Sequence[Mapping[str, str]], shares: Sequence[str], means: Sequence[str]) -> str:
    """Counts and means with 95 % intervals (Wilson's; of normal means), a line a way."""
    lines = [f"| | pictures | {' | '.join((*shares, *means))} |", "|---" * (2 + len(shares) + len(means)) + "|"]
    for way in dict.fromkeys(row["way"] for row in rows):
        some = [row for row in rows if row["way"] == way]
        cells = [str(len(some))]
        for name in shares:
            right = sum(int(row[name]) for row in some)
            low, high = wilson(right, len(some))
            cells.append(f"{right} [{low:.0%}, {high:.0%}]")
        for name in means:
            values = np.array([float(row[name]) for row in some])
            half = 1.96 * values.std(ddof=min(1, len(some) - 1)) / np.sqrt(len(some))
            cells.append(f"{values.mean():.2f} ± {half:.2f}")
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)

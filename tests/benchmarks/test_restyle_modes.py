"""The table of ways to restyle."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from benchmarks import restyle_modes
from ldm.shipped import SAMPLES


def test_ways_beside_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--cnt", str(SAMPLES / "cnt" / "cat.jpg"), "--sty", str(SAMPLES / "sty"), "--size", "64", "--steps", "8",
              "--out", str(tmp_path)]  # fmt: skip
    restyle_modes.main([*common, "--ways", "content", "style", "fast"])
    restyle_modes.main([*common, "--ways", "style", "StyleID"])
    rows = list(csv.DictReader((tmp_path / "pairs.csv").open(newline="")))
    by_way = {way: [row for row in rows if row["way"] == way] for way in ("content", "style", "fast", "StyleID")}
    assert all(len(its) == 3 for its in by_way.values()) and len(rows) == 12
    assert all(float(row["histogram"]) < 1e-3 and float(row["colour"]) < 1e-3 for row in by_way["style"])
    assert all(float(row["edges"]) < 1e-3 and float(row["ssim"]) < 1e-3 for row in by_way["content"])
    assert {float(row["calls"]) for row in by_way["StyleID"]} == {3 * 8 - 1}
    assert {float(row["calls"]) for row in by_way["fast"]} == {3 * 2}
    table = capsys.readouterr().out
    assert all(f"| {way} |" in table for way in by_way)

"""The table of ways to restyle."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from benchmarks import restyle_modes
from ldm.shipped import SAMPLES


def test_ways_beside_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--cnt", str(SAMPLES / "cnt" / "cat.jpg"), "--sty", str(SAMPLES / "sty"), "--size", "64", "--steps", "8",
              "--out", str(tmp_path)]  # fmt: skip
    restyle_modes.main([*common, "--ways", "content", "style", "fast"])
    made = (tmp_path / "pairs.csv").read_text()
    (tmp_path / "pairs.csv").write_text(made.rpartition("fast,")[0])  # as if it had been stopped before the last pair
    restyle_modes.main([*common, "--ways", "content", "style", "fast", "StyleID"])
    assert (tmp_path / "pairs.csv").read_text().startswith(made)  # the pair is the same, the others are not made again
    rows = list(csv.DictReader((tmp_path / "pairs.csv").open(newline="")))
    by_way = {way: [row for row in rows if row["way"] == way] for way in ("content", "style", "fast", "StyleID")}
    assert all(len(its) == 3 for its in by_way.values()) and len(rows) == 12
    assert all(float(row["histogram"]) < 1e-3 and float(row["colour"]) < 1e-3 for row in by_way["style"])
    assert all(float(row["edges"]) < 1e-3 and float(row["ssim"]) < 1e-3 for row in by_way["content"])
    assert {float(row["calls"]) for row in by_way["StyleID"]} == {3 * 8 - 1}
    assert {float(row["calls"]) for row in by_way["fast"]} == {3 * 2}
    table = capsys.readouterr().out
    assert all(f"| {way} | 3 |" in table for way in by_way)
    assert "| fast | StyleID |" in table and (tmp_path / "sheet.png").is_file()


def row(way: str, content: str, value: float) -> dict[str, Any]:
    return {"way": way, "content": content, "style": "s", "calls": 1, **dict.fromkeys(restyle_modes.MEASURES, value)}


def test_pairs_in_which_a_way_is_nearer_are_counted() -> None:
    rows = [row("StyleID", "a", 1.0), row("StyleID", "b", 3.0), row("reinhard", "a", 2.0), row("reinhard", "b", 2.0)]
    assert restyle_modes.wins(rows).splitlines()[2:] == ["| reinhard |" + " 1 of 2 |" * 5]


def test_a_way_is_compared_with_what_it_varies() -> None:
    made = {"StyleID": {"a": 1.0, "b": 3.0}, "fast": {"a": 2.0, "b": 4.0}, "fast, adaptive 1": {"b": 3.0, "c": 9.0},
            "bdia": {"a": 0.5, "b": 1.5}}  # fmt: skip
    rows = [row(way, content, value) for way, values in made.items() for content, value in values.items()]
    lines = restyle_modes.differences(rows).splitlines()[2:]
    assert [line.split(" | ")[:3] for line in lines] == [
        ["| fast", "StyleID", "+50.0 [+50.0, +50.0]"],
        ["| fast, adaptive 1", "fast", "-25.0 [-25.0, -25.0]"],  # of the one pair that both have
        ["| bdia", "StyleID", "-50.0 [-75.0, -25.0]"],
    ]

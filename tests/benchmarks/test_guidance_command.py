"""The judge of guided pictures on pictures whose truth is known, and the measuring of costs."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.guidance import background
from benchmarks.guidance_cost import measure
from benchmarks.guidance_judge import Box, judge, overlap, tasks
from benchmarks.ledger import Ledger, table


def test_true_pictures_are_right() -> None:
    for task in tasks(20, seed=3):
        for found in judge(task.true(), task):
            assert found.there and found.centred and found.right and found.overlap > 0.5, task


def test_wrong_pictures_are_not() -> None:
    task = tasks(1, seed=4)[0]
    first, second = task.shapes
    swapped = replace(task, shapes=(replace(first, box=second.box), replace(second, box=first.box)))
    assert all(found.there and not found.centred and found.overlap == 0 for found in judge(swapped.true(), task))
    lacking = judge(replace(task, shapes=(first,)).true(), task)
    assert lacking[0].right and not lacking[1].there
    other = replace(task, shapes=(replace(first, name="star" if first.name != "star" else "heart"), second))
    assert [found.right for found in judge(other.true(), task)] == [False, True]
    assert not any(found.there for found in judge(Image.new("RGB", (64, 64), (1, 2, 3)), replace(task, ground="black")))


def test_tasks_are_the_same_again_and_their_boxes_lie_apart() -> None:
    assert tasks(5, seed=1) == tasks(5, seed=1) != tasks(5, seed=2)
    assert tasks(1, 3, between="touching")[0].prompt == tasks(1, 3)[0].prompt.replace(" and ", " touching ")
    for task in tasks(30, seed=5, shapes=3):
        sides = [shape.box.sides for shape in task.shapes]
        assert all(overlap(a, b) == 0 for i, a in enumerate(sides) for b in sides[i + 1 :])
        assert len({task.ground, *(shape.colour for shape in task.shapes)}) == 4
    assert overlap(Box(0, 0, 1, 1).sides, Box(0, 0, 0.5, 1).sides) == 0.5


def test_the_background_is_what_it_compares() -> None:
    task = replace(tasks(1, seed=6)[0], ground="blue", shapes=())
    true = task.true()
    assert background(true, true, task) == 0
    assert background(true, Image.eval(true, lambda value: min(value + 6, 255)), task) == 6


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    asked: list[str] = []

    def add(ledger: Ledger, way: str, seed: int, right: int) -> None:
        def measure() -> dict[str, float]:
            asked.append(way)
            return {"right": right, "moved": 1.5}

        ledger.add({"way": way, "seed": seed}, measure)

    first = Ledger(tmp_path / "rows.csv", math.inf)
    for seed in (1, 2):
        add(first, "plain", seed, 1)
    again = Ledger(tmp_path / "rows.csv", math.inf)
    for seed in (1, 2, 3):
        add(again, "plain", seed, 0)
    add(again, "other", 1, 0)
    add(Ledger(tmp_path / "rows.csv", 0), "late", 1, 1)
    assert asked == ["plain"] * 3 + ["other"]
    assert again.rows == Ledger(tmp_path / "rows.csv", math.inf).rows
    lines = table(again.rows, ["right"], ["moved"]).splitlines()
    assert lines[2] == "| plain | 3 | 2 [21%, 94%] | 1.50 ± 0.00 |" and lines[3].startswith("| other | 1 | 0 [0%,")


@pytest.mark.skipif(sys.platform != "linux", reason="the largest memory is read from /proc")
def test_costs_of_a_small_network() -> None:
    row = measure(width=32, size=16, repeats=1)
    assert all(row[name] > 0 for name in ("plain_s", "layout_time_ratio", "excite_memory_ratio"))

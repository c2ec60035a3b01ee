"""What lies outside, at the edge and inside of a mask is measured apart."""

from __future__ import annotations

import pytest
import torch

from benchmarks.bundled import painting, photograph
from benchmarks.mask_edges import MARKS, PAINTINGS, change, in_pixels, measured
from ldm.pictures.mask_proposals import Marks


def test_a_step_along_the_edge_is_seen() -> None:
    torch.manual_seed(0)
    content = 0.1 * torch.rand(3, 40, 40)
    mask = torch.zeros(40, 40)
    mask[10:30, 10:30] = 1
    same = measured(content, content, mask, 2)
    assert same["outside_max"] == same["inside"] == 0
    assert same["seam"] == same["seam_content"] == pytest.approx(1, abs=0.1)
    assert same["edge_change"] == same["inside_change"] == 1
    cut = measured(content + 0.5 * mask, content, mask, 2)
    assert cut["seam"] > 2.5 < cut["edge_change"] and cut["inside_change"] == pytest.approx(1, abs=1e-4)
    assert cut["inside"] == pytest.approx(0.5 * 127.5, rel=1e-4) and cut["outside_max"] == 0
    moved = measured(content + 0.5 * mask.roll(8, 1), content, mask, 2)
    assert moved["outside_max"] == pytest.approx(0.5 * 127.5, rel=1e-4)


def test_marks_of_any_size_are_in_pixels() -> None:
    marks = in_pixels(Marks(box=(0.25, 0, 0.5, 1), inside=((0.5, 0.5),)), 80, 40)
    assert marks == Marks(box=(20, 0, 40, 40), inside=((40, 20),), outside=())
    assert in_pixels(Marks(inside=((0.5, 0.25),)), 80, 40) == Marks(inside=((40, 10),))
    assert all(photograph(name).is_file() for name in MARKS) and all(painting(name).is_file() for name in PAINTINGS)


def test_changes_are_between_neighbours() -> None:
    picture = torch.zeros(3, 4, 5)
    picture[1, 2, 3] = 1
    assert change(picture).nonzero().tolist() == [[1, 3], [2, 2], [2, 3]]

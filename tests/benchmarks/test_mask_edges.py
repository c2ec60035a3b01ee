"""What lies outside, at the edge and inside of a mask is measured apart."""

from __future__ import annotations

import pytest
import torch

from benchmarks.mask_edges import change, measured


def test_a_step_along_the_edge_is_seen() -> None:
    torch.manual_seed(0)
    content = 0.1 * torch.rand(3, 40, 40)
    mask = torch.zeros(40, 40)
    mask[10:30, 10:30] = 1
    same = measured(content, content, mask, 2)
    assert same["outside_max"] == same["inside"] == 0
    assert same["seam"] == same["seam_content"] == pytest.approx(1, abs=0.1)
    cut = measured(content + 0.5 * mask, content, mask, 2)
    assert cut["seam"] > 3 and cut["inside"] == pytest.approx(0.5 * 127.5, rel=1e-4) and cut["outside_max"] == 0
    moved = measured(content + 0.5 * mask.roll(8, 1), content, mask, 2)
    assert moved["outside_max"] == pytest.approx(0.5 * 127.5, rel=1e-4)


def test_changes_are_between_neighbours() -> None:
    picture = torch.zeros(3, 4, 5)
    picture[1, 2, 3] = 1
    assert change(picture).nonzero().tolist() == [[1, 3], [2, 2], [2, 3]]

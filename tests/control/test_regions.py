"""Boxes and masks: how far each cell is from their rim, and what is around them."""

from __future__ import annotations

import pytest
import torch

from ldm.control import Box, Boxes, Mask


def test_distances_from_a_box() -> None:
    distances = Box(0.25, 0.25, 0.75, 0.75).distances((8, 8))
    assert distances[3, 3] == -1.5 and distances[2, 4] == -0.5 and distances[0, 3] == 1.5
    assert distances[0, 0] == pytest.approx(1.5 * 2**0.5)
    assert Box(0, 0, 0.5, 1).distances((4, 8))[:, 0].tolist() == [-3.5] * 4  # no rim at the picture's edge
    assert bool((Box(0, 0, 1, 1).distances((4, 8)) <= -4).all())


def test_a_mask_is_as_far_as_the_box_that_it_fills() -> None:
    mask = torch.zeros(64, 96)
    mask[16:48, :48] = 1
    box = Box(0, 0.25, 0.5, 0.75)
    difference = (Mask(mask).distances((8, 12)) - box.distances((8, 12))).abs()
    assert float(difference.max()) < 0.2  # of a cell: a mask is looked at in cells of 1/128
    assert Mask(mask).frame == box and Mask(mask).parts == (Mask(mask),)
    assert bool((Mask(torch.ones(4, 4)).distances((8, 8)) == -8).all())


def test_boxes_lie_apart() -> None:
    first, second = Box(0, 0, 0.25, 0.5), Box(0.5, 0.25, 1, 0.75)
    both = Boxes((first, second))
    assert both.parts == (first, second) and both.frame == Box(0, 0, 1, 0.75)
    apart = torch.minimum(first.distances((8, 8)), second.distances((8, 8)))
    assert torch.equal(both.distances((8, 8)), apart)

"""Regions as cells of a map, and energies of maps that were made by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ldm.control import AttentionMaps, Box, Boxes, Excite, Goal, Layout, Mask, Sites, excite_sites, layout_sites
from ldm.util import UserError
from tests.control.networks import network


def maps_of(planes: Tensor, site: str = "here") -> AttentionMaps:
    """[b h H W m] as what was observed at one site."""
    maps = AttentionMaps()
    maps.probs[site, 0] = planes.flatten(2, 3)
    maps.grids[site] = (planes.shape[2], planes.shape[3])
    return maps


def test_boxes_as_cells() -> None:
    box = Box(0.26, 0.5, 0.8, 1.0)
    assert box.cells((4, 4)).nonzero().tolist() == [[2, 1], [2, 2], [3, 1], [3, 2]]
    assert not box.is_small((4, 4)) and Box(0.1, 0.6, 0.9, 0.9).is_small((2, 2))
    corner = Box(0.8, 0.8, 0.95, 0.95)
    assert corner.is_small((4, 4)) and corner.cells((4, 4)).nonzero().tolist() == [[3, 3]]
    assert Boxes((box, corner)).cells((4, 4)).sum() == 5 and Boxes((box, corner)).is_small((4, 4))
    assert Box(0, 0, 1, 1).cells((3, 5)).all()


@pytest.mark.parametrize(
    ("sides", "what"),
    [
        ((0.1, 0.1, 1.2, 0.5), "does not lie in the picture"), ((-0.1, 0.1, 0.2, 0.5), "does not lie in the picture"),
        ((0.1, 0.1, math.nan, 0.5), "does not lie in the picture"), ((0.5, 0.1, 0.2, 0.5), "empty or inverted"),
        ((0.1, 0.3, 0.2, 0.3), "empty or inverted"),
    ],
)  # fmt: skip
def test_boxes_that_are_none(sides: tuple[float, ...], what: str) -> None:
    with pytest.raises(UserError, match=what):
        Box(*sides)


def test_masks_as_cells() -> None:
    values = torch.zeros(8, 8)
    values[:4, 2:] = 1
    mask = Mask(values)
    assert mask.cells((4, 4)).nonzero().tolist() == [[row, column] for row in (0, 1) for column in (1, 2, 3)]
    assert mask.cells((2, 2)).tolist() == [[1, 1], [0, 0]]  # the half of the upper left cell is enough
    dot = torch.zeros(8, 8)
    dot[7, 0] = 1
    assert Mask(dot).is_small((2, 2)) and Mask(dot).cells((2, 2)).tolist() == [[0, 0], [1, 0]]
    with pytest.raises(UserError, match="marks at least one"):
        Mask(torch.zeros(4, 4))


def test_layout_of_known_maps() -> None:
    """Two heads of which one has a quarter of a word inside and the other all; the second picture wants nothing."""
    planes = torch.zeros(2, 2, 2, 2, 3)
    planes[0, 0, :, :, 1] = 0.1
    planes[0, 1, 0, 0, 1] = 0.3
    planes[0, :, :, :, 2] = 0.2
    goals = [Goal((1,), Box(0, 0, 0.5, 0.5)), Goal((2,), Box(0, 0, 1, 1))]
    energy = Layout([goals, []], Sites(("here",)))
    assert energy.rows == [0]
    found = energy(maps_of(planes), [0])
    torch.testing.assert_close(found, torch.tensor([((3 / 4) ** 2 + 0) / 2 / 2]))
    several = Layout([[Goal((1, 2), Box(0, 0, 0.5, 0.5))]], Sites(("here",)))(maps_of(planes[:1]), [0])
    torch.testing.assert_close(several, torch.tensor([((3 / 4) ** 2 + 0 + 2 * (3 / 4) ** 2) / 4]))


def test_excite_of_known_maps() -> None:
    """The word that is looked at least counts; words beyond the stop share nothing."""
    planes = torch.zeros(1, 1, 3, 3, 6)
    planes[..., 0] = 0.9  # the start marker
    planes[0, 0, 1, 1, 2] = 0.05
    energy = Excite([[(1,), (2,)]], Sites(("here",)))
    peaks = energy.peaks(maps_of(planes), 0, 0)
    assert peaks[1] > peaks[0] and float(energy(maps_of(planes), [0])) == pytest.approx(1 - float(peaks[0]))
    stopped = Excite([[(1,), (2,)]], Sites(("here",)), stops=[3]).peaks(maps_of(planes), 0, 0)
    assert bool((stopped > peaks).all())
    pair = Excite([[(1, 2)]], Sites(("here",))).peaks(maps_of(planes), 0, 0)
    torch.testing.assert_close(pair, peaks.mean(dim=0, keepdim=True))
    assert Excite([[], [(1,)]], Sites(("here",))).rows == [1]


def test_sites_that_count() -> None:
    unet, _ = network("unet_sd1")
    blocks = {name.split(".transformer")[0] for name in excite_sites(unet)}
    assert blocks == {"middle_block.1"}  # a quarter of the latent's size
    assert len(layout_sites(unet)) == 3
    unconditional, _ = network("unet_uncond")
    for choose in (layout_sites, excite_sites):
        with pytest.raises(UserError, match="cross-attention"):
            choose(unconditional)

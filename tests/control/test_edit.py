"""Edited prompts at the seam: which tokens come from which, whose maps they get, and who stays as it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ldm.control import Sites, attention_mode, sites
from ldm.control.edit import Alignment, EditCross, EditSelf, WordMaps, halves
from ldm.modules.diffusionmodules.levels import Level, at_level
from tests.control.networks import network


def test_alignments() -> None:
    swapped = Alignment.of([1, 5, 6, 9], [1, 7, 6, 9])
    assert torch.equal(swapped.matrix, torch.eye(4))  # a word in another's place has its map
    added = Alignment.of([1, 5, 9], [1, 7, 5, 9])
    assert added.matrix.sum(dim=0).tolist() == [1, 0, 1, 1] and added.matrix[1].tolist() == [0, 0, 1, 0]
    longer = Alignment.of([1, 5, 9], [1, 7, 8, 9])
    assert longer.matrix[1].tolist() == [0, 1, 1, 0]
    shorter = Alignment.of([1, 7, 8, 9], [1, 5, 9])
    assert shorter.matrix[:, 1].tolist() == [0, 0.5, 0.5, 0]
    first, second = torch.rand(2, 3, 3), torch.rand(2, 3, 4)
    found = added.applied(first, second)
    assert torch.equal(found[..., [0, 2, 3]], first) and torch.equal(found[..., 1], second[..., 1])


def run(modes: dict[Sites, Any], rows: int = 4, index: int = 0) -> torch.Tensor:
    unet, _ = network("unet_sd1")
    generator = torch.Generator().manual_seed(3)
    x, context = torch.randn(rows, 4, 16, 16, generator=generator), torch.randn(rows, 7, 24, generator=generator)
    with torch.no_grad(), attention_mode(unet, modes), at_level(Level(500, 0.5, 0.8, index)):
        return unet(x, torch.full((rows,), 500), context=context)


@pytest.mark.parametrize("rows", [2, 4])
def test_only_the_second_picture_changes_and_only_in_its_steps(rows: int) -> None:
    """With guidance (four rows: two of them unconditional) and without."""
    unet, _ = network("unet_sd1")
    plain = run({}, rows)
    assert halves(rows, 1) == (slice(rows - 2, rows - 1), slice(rows - 1, rows))
    cross, self_ = sites(unet, "*", "cross"), sites(unet, "*", "self")
    same = [Alignment.of(range(7), range(7))]
    for modes in ({cross: EditCross(same, 3)}, {self_: EditSelf(1, 3)}):
        changed = run(modes, rows, index=2)
        torch.testing.assert_close(changed[:-1], plain[:-1], rtol=1e-4, atol=1e-4)
        assert float((changed[-1] - plain[-1]).abs().max()) > 0.01
        torch.testing.assert_close(run(modes, rows, index=3), plain, rtol=1e-4, atol=1e-4)


def test_a_prompt_of_new_words_alone_is_on_its_own() -> None:
    unet, _ = network("unet_sd1")
    cross = sites(unet, "*", "cross")
    new = Alignment(torch.zeros(7, 7), torch.ones(7))
    torch.testing.assert_close(run({cross: EditCross([new], 3)}), run({}), rtol=1e-4, atol=1e-4)
    louder = Alignment(torch.zeros(7, 7), torch.tensor([1.0, 1, 5, 1, 1, 1, 1]))
    assert float((run({cross: EditCross([louder], 3)})[-1] - run({})[-1]).abs().max()) > 0.01


def test_the_first_prompts_maps_are_the_seconds() -> None:
    unet, _ = network("unet_sd1")
    (site, *_) = sites(unet, "*", "cross")
    seen = WordMaps([((2,), (2,))])
    run({Sites((site,)): EditCross([Alignment.of(range(7), range(7))], 3, seen)})
    (planes,) = seen.sums.values()
    assert planes.shape[:2] == (1, 2) and torch.equal(planes[0, 0], planes[0, 1])


def test_masks_of_words() -> None:
    seen = WordMaps([((1,), (2,))])
    first, second = torch.zeros(1, 1, 64, 3), torch.zeros(1, 1, 64, 3)
    first[0, 0, 0, 1] = 1  # the upper left corner, and in the second picture the lower right one
    second[0, 0, 63, 2] = 0.1
    for _ in range(2):
        seen.add(first, second, (8, 8))
    mask = seen.masks((8, 8))
    assert mask.shape == (1, 1, 8, 8) and mask[0, 0].nonzero().tolist() == [[0, 0], [7, 7]]
    assert seen.masks((16, 16)).shape == (1, 1, 16, 16)
    fine = WordMaps([((1,), (1,))])
    planes = torch.zeros(1, 1, 256, 3)
    planes[0, 0, 0, 1] = 1
    fine.add(planes, planes, (16, 16))
    assert fine.masks((16, 16))[0, 0].nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]

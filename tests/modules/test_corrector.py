"""What a corrector looks at, and that it takes away what it has learned and nothing before."""

from __future__ import annotations

import pytest
import torch

from ldm.modules.corrector import Corrector, from_patches, holding, patches_of, seen_in_patches
from ldm.modules.diffusionmodules.openaimodel import UNetModel


@pytest.fixture(scope="module")
def unet() -> UNetModel:
    return UNetModel(
        image_size=8, in_channels=3, out_channels=3, model_channels=32, attention_resolutions=[2, 1], num_res_blocks=1,
        channel_mult=[1, 2], num_heads=2, use_spatial_transformer=True, context_dim=16,
    ).eval()  # fmt: skip


def test_patches_are_two_by_two_cells_and_come_back() -> None:
    x = torch.randn(2, 3, 4, 6)
    patches = patches_of(x)
    assert patches.shape == (2, 6, 12) and torch.equal(from_patches(patches, 4, 6), x)
    assert torch.equal(patches[1, 4].reshape(3, 2, 2), x[1, :, 2:4, 2:4]), "row by row: the fifth of three a row"


def test_blocks_are_held_before_they_are_enlarged_and_the_network_is_left_as_it_was(unet: UNetModel) -> None:
    x, t, context = torch.randn(2, 3, 8, 8), torch.tensor([3, 5]), torch.randn(2, 4, 16)
    with torch.no_grad():
        plain = unet(x, t, context)
        with holding(unet) as held:
            assert held == []
            assert torch.equal(unet(x, t, context), plain)
            assert [list(one.shape) for one in held] == [[2, 64, 4, 4]] * 3 + [[2, 32, 8, 8]] * 2
            first = [one.clone() for one in held]
            unet(x + 1, t, context)
            assert len(held) == 5 and not torch.equal(held[0], first[0]), "those of the last call"
        assert torch.equal(unet.out(first[-1]), plain), "the last is what the network's answer is made of"
    assert not any(module._forward_hooks for module in unet.modules())


def test_each_patch_is_seen_with_what_blocks_hold_there() -> None:
    x0, expected, coarse, fine = (torch.randn(1, c, s, s) for c, s in ((3, 8), (3, 8), (5, 4), (2, 8)))
    coarser = torch.randn(1, 4, 2, 2)
    seen = seen_in_patches(x0, expected, [coarser, coarse, fine])
    assert seen.shape == (1, 16, 12 + 12 + 4 + 5 + 8)
    patch = seen[0, 4 * 2 + 3]  # the third row's last
    parts = (x0[..., 4:6, 6:], expected[..., 4:6, 6:], coarser[..., 1, 1], coarse[..., 2, 3], fine[..., 4:6, 6:])
    assert torch.equal(patch, torch.cat([part.flatten() for part in parts]))


def test_an_untrained_one_corrects_nothing() -> None:
    x0, expected, held = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8), [torch.randn(2, 5, 4, 4)]
    corrector = Corrector(inputs=29, channels=3, width=16).eval()
    assert torch.equal(corrector.corrected(x0, expected, held), expected)


def test_what_is_far_from_all_that_was_trained_on_changes_no_more_than_what_is_not_so_far() -> None:
    corrector = Corrector(inputs=29, channels=3, width=16).eval()
    torch.nn.init.normal_(corrector.last.weight)
    away = torch.full((1, 1, 29), 1e3)
    assert torch.equal(corrector(away), corrector(away * 1e3)) and torch.isfinite(corrector(away)).all()

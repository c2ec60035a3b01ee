"""What a retoucher looks at, and where it puts what it adds."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ldm.modules.retoucher import (
    STRENGTH,
    Retoucher,
    from_pixel_patches,
    pixel_patches,
    surroundings,
    window,
)


def test_a_patch_is_seen_with_a_ring_of_cells() -> None:
    latents = torch.randn(2, 3, 6, 8)
    around = surroundings(F.pad(latents, (1,) * 4, mode="replicate"))
    assert around.shape == (2, 3 * 4, 16 * 3)
    inner = around[1, 4 + 2].reshape(3, 4, 4)  # the second row's third
    assert torch.equal(inner, latents[1, :, 1:5, 3:7])
    corner = around[0, 0].reshape(3, 4, 4)
    assert torch.equal(corner[:, 1:, 1:], latents[0, :, :3, :3])
    assert torch.equal(corner[:, 0, 0], latents[0, :, 0, 0]), "beyond the border is what is at the border"


def test_pixel_patches_come_back_and_are_in_the_order_of_the_latents() -> None:
    pictures = torch.randn(2, 3, 12, 16)
    patches = pixel_patches(pictures, 4)
    assert patches.shape == (2, 3 * 4, 48)
    assert torch.equal(patches[1, 4 + 2].reshape(3, 4, 4), pictures[1, :, 4:8, 8:12])
    assert torch.equal(from_pixel_patches(patches, 12, 16, 4), pictures)


def test_windows_half_a_patch_aside_come_to_one() -> None:
    one = window(16, 24, 8)
    assert one.shape == (16, 24) and torch.equal(one[:8, :8], one[8:, 16:])
    assert one[0].max() < 0.05 and one[3:5, 3:5].min() > 0.9
    line = window(8, 8, 8).sum(1) / window(8, 8, 8).sum(1).max()
    assert torch.allclose(line + line.roll(4), (line + line.roll(4)).mean().expand(8))


def test_an_untrained_one_adds_nothing_and_a_trained_one_the_same_everywhere() -> None:
    pictures, latents = torch.randn(1, 3, 16, 24), torch.randn(1, 2, 8, 12)
    retoucher = Retoucher(channels=2, side=4, width=16).eval()
    assert torch.equal(retoucher.retouched(pictures, latents), pictures)
    torch.nn.init.ones_(retoucher.last.bias)
    assert torch.allclose(retoucher.retouched(pictures, latents), pictures + STRENGTH)


@torch.no_grad()
def test_four_grids_are_blended_under_their_windows() -> None:
    pictures, latents = torch.randn(2, 3, 16, 24), torch.randn(2, 2, 8, 12)
    retoucher = Retoucher(channels=2, side=4, width=16).eval()
    torch.nn.init.normal_(retoucher.last.weight)
    found = retoucher.retouched(pictures, latents)
    weights = window(4, 4, 4)
    wanted, counted = torch.zeros_like(pictures), torch.zeros(16, 24)
    padded = F.pad(latents, (1,) * 4, mode="replicate")
    for top in range(7):
        for left in range(11):
            where = (..., slice(2 * top, 2 * top + 4), slice(2 * left, 2 * left + 4))
            around = padded[..., top : top + 4, left : left + 4].flatten(1)
            wanted[where] += weights * retoucher(around, pictures[where].flatten(1)).reshape(2, 3, 4, 4)
            counted[where] += weights
    assert torch.allclose(found, pictures + wanted / counted, atol=1e-5)
    small = retoucher.retouched(pictures[..., :4, :4], latents[..., :2, :2])
    alone = retoucher(
        F.pad(latents[..., :2, :2], (1,) * 4, mode="replicate").flatten(1), pictures[..., :4, :4].flatten(1)
    )
    assert torch.allclose(small.flatten(1), pictures[..., :4, :4].flatten(1) + alone, atol=1e-5), "one patch, one grid"

"""What a retoucher looks at, and where it puts what it adds."""

from __future__ import annotations

import torch

from ldm.modules.retoucher import STRENGTH, Retoucher, from_pixel_patches, pixel_patches, surroundings


def test_a_patch_is_seen_with_a_ring_of_cells() -> None:
    latents = torch.randn(2, 3, 6, 8)
    around = surroundings(latents)
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


def test_an_untrained_one_adds_nothing_and_each_patch_is_by_itself() -> None:
    pictures, latents = torch.randn(1, 3, 16, 16), torch.randn(1, 2, 8, 8)
    retoucher = Retoucher(channels=2, side=4, width=16).eval()
    assert torch.equal(retoucher.retouched(pictures, latents), pictures)
    torch.nn.init.normal_(retoucher.last.weight)
    before = retoucher.retouched(pictures, latents)
    moved = pictures.clone()
    moved[..., 4:8, 8:12] += 1
    change = (retoucher.retouched(moved, latents) - before).abs().amax((0, 1)) > 1e-5
    assert change[4:8, 8:12].all() and change.sum() == 16
    wanted = pixel_patches(pictures, 4) + retoucher(surroundings(latents), pixel_patches(pictures, 4))
    assert torch.allclose(pixel_patches(before, 4), wanted)
    torch.nn.init.zeros_(retoucher.last.weight)
    torch.nn.init.ones_(retoucher.last.bias)
    assert torch.allclose(retoucher.retouched(pictures, latents), pictures + STRENGTH)

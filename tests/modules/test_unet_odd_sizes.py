"""Latents whose sizes the levels of a UNet do not divide."""

from __future__ import annotations

import pytest
import torch

from ldm.modules.diffusionmodules.openaimodel import UNetModel


@pytest.mark.parametrize("size", [(9, 11), (5, 8), (12, 10)])
def test_any_size_goes_through_three_levels(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    unet = UNetModel(
        in_channels=4, out_channels=4, model_channels=32, num_res_blocks=1, channel_mult=[1, 1, 1],
        attention_resolutions=[2], num_head_channels=16, use_spatial_transformer=True, context_dim=8,
    ).eval()  # fmt: skip
    torch.nn.init.normal_(unet.out.get_parameter("2.weight"), std=0.1)
    x, t, context = torch.randn(1, 4, *size), torch.tensor([10]), torch.randn(1, 3, 8)
    with torch.no_grad():
        plain, moved = unet(x, t, context), x.clone()
        moved[..., -1, -1] += 1  # the last place, which has no even neighbour, is seen like any other
        assert plain.shape == x.shape
        assert (unet(moved, t, context) - plain).abs()[..., -1, -1].max() > 1e-4

"""The measures of restyling tell near from far."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ldm.metrics.appearance import CONTENT, STYLE, gabor_bank


def waves(angle: float, tint: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Tensor:
    """Stripes [3, 64, 64] of a direction and colour."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    angle_in_radians = torch.tensor(angle).deg2rad()
    wave = torch.sin(1.2 * (x * torch.cos(angle_in_radians) + y * torch.sin(angle_in_radians)))
    return torch.tensor(tint)[:, None, None] * (0.4 * wave + 0.5) * 2 - 1


@pytest.mark.parametrize("distance", [*STYLE.values(), *CONTENT.values()])
def test_a_picture_has_no_distance_to_itself(distance: Any) -> None:
    assert distance(waves(20), waves(20)) == pytest.approx(0, abs=1e-5)


def test_texture_sees_direction_and_not_place() -> None:
    moved = waves(0).roll((7, 21), dims=(1, 2))
    assert STYLE["texture"](waves(0), moved) < 0.15 < 0.5 < STYLE["texture"](waves(0), waves(90))


def test_colour_sees_tint_and_not_place() -> None:
    flipped, red = waves(0).flip(2), waves(0, (1.0, 0.4, 0.4))
    assert STYLE["colour"](waves(0), flipped) < 1 < 5 < STYLE["colour"](waves(0), red)


def test_edges_see_place_and_not_contrast() -> None:
    block = torch.full((3, 64, 64), -0.8)
    block[:, 16:40, 20:50] = 0.8
    assert CONTENT["edges"](block, block * 0.5) < 0.1 < 0.7 < CONTENT["edges"](block, block.roll(12, dims=2))


def test_filters_have_no_average() -> None:
    assert gabor_bank().sum(dim=(1, 2, 3)).abs().max() < 1e-5

"""Pictures moved along a path are what the world paints of a thing that moves so."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ldm.moved import moved_along, origins_of
from ldm.world.film import FilmWorld, placed, standing_out
from ldm.world.motion import Course


@pytest.mark.parametrize("manner", ["move", "turn", "grow", "shrink"])
def test_a_thing_alone_moves_as_it_is_painted(manner: str) -> None:
    world = FilmWorld("all", size=64, length=40, seed=1)
    films = [film for film in world.films(range(40)) if film.course.manner == manner and film.course.motion > 50][:2]
    assert films
    for film in films:
        layers = placed(standing_out(film, 64), film.course.poses(8), 64)
        painted = torch.from_numpy(layers[..., :3]).permute(0, 3, 1, 2)
        moved = moved_along(painted[:1], torch.from_numpy(film.course.path(8))[None])[0]
        still = (painted - painted[:1])[1:].abs().mean()
        assert (moved - painted).abs().mean() < 0.1 * still, "one drawn anew, the other taken from the first frame"


def test_the_map_leads_back_to_the_first_frame() -> None:
    course = Course(x=0.4, y=0.5, side=0.4, heading=30.0, motion=120.0, fps=6.0, manner="turn", clockwise=False)
    path = torch.from_numpy(course.path(5))[None]
    maps = origins_of(path)
    assert torch.allclose(maps[0, 0], torch.tensor([[1.0, 0, 0], [0, 1, 0]])), "the first frame is where it is"
    middles = (maps[0, :, :, :2] * path[0, :, None, :2]).sum(-1) + maps[0, :, :, 2]
    assert torch.allclose(middles, path[0, :1, :2].expand(5, 2), atol=1e-6)


def test_a_turn_in_a_wide_picture_keeps_right_angles() -> None:
    wide = torch.full((1, 3, 32, 64), -1.0)
    wide[..., 10:22, 26:38] = 1.0  # a square, in the middle
    path = torch.tensor([[[0.5, 0.5, 0.0, 0.0], [0.5, 0.5, 90.0, 0.0]]])
    turned = moved_along(wide, path)[0, 1]
    assert (turned - wide[0]).abs().max() < 1e-3


def test_mixed_precision_does_not_round_places() -> None:
    picture = torch.rand(1, 3, 64, 64)
    path = torch.tensor([[[0.5, 0.5, 0.0, 0.0], [0.61, 0.53, 17.0, 0.1]]])
    with torch.autocast("cpu", torch.bfloat16):
        mixed = moved_along(picture, path)
    assert torch.equal(mixed, moved_along(picture, path))


def test_what_comes_in_is_the_border() -> None:
    picture = torch.rand(1, 3, 16, 16)
    path = torch.tensor([[[0.5, 0.5, 0.0, 0.0], [0.75, 0.5, 0.0, 0.0]]])
    moved = moved_along(picture, path)[0, 1]
    np.testing.assert_allclose(moved[:, :, 4:], picture[0, :, :, :-4], atol=1e-5)
    np.testing.assert_allclose(moved[:, :, 0], picture[0, :, :, 0], atol=1e-5)

"""Flicker is that of the background alone, and of the thing where it lies alike in all frames."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.bundled import painting
from benchmarks.film_flicker import PAINTINGS, chosen, flicker, flicker_of_thing, table
from ldm.world.film import Film, paint_film, silhouettes

FRAMES, SIZE = 4, 96


def painted(film: Film) -> Tensor:
    return torch.from_numpy(paint_film(film, FRAMES, SIZE)).permute(0, 3, 1, 2).contiguous()


def test_a_film_of_the_world_does_not_flicker_and_noise_does() -> None:
    torch.manual_seed(0)
    for film in chosen(3, FRAMES, SIZE):
        frames, seen = painted(film), silhouettes(film, FRAMES, SIZE)
        assert film.held_out and flicker(frames, seen) < 0.1
        assert flicker_of_thing(frames, film, seen) < 10, "the course is undone"
        still = frames[:1].expand_as(frames)
        assert flicker(still, seen) == 0 and flicker_of_thing(still, film, seen) > flicker_of_thing(frames, film, seen)
        step = torch.tensor([0, 2, 0, 2]).reshape(-1, 1, 1, 1) / 127.5
        assert flicker(frames + step, seen) == pytest.approx(2, abs=0.1)


def test_the_table_has_means_and_ends() -> None:
    rows = {"way": [{"background": 1.0}, {"background": 3.0}]}
    assert table(rows).splitlines()[-1] == "| way | 2.00 [1.00, 3.00] |"
    assert all(painting(name).is_file() for name in PAINTINGS)

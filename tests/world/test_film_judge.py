"""The judge of films is right about true ones, and is not fooled by planted faults."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ldm.world.film import Film, FilmWorld, paint_film
from ldm.world.film_judge import FilmTable, judge_film
from ldm.world.grounds import ground
from ldm.world.motion import Course
from ldm.world.scene import Thing

STAR = Thing("star", None, None, "red", "plain")
COURSE = Course(x=0.35, y=0.5, side=0.45, heading=10.0, motion=120.0, fps=7.0, manner="turn")
SHOWN = Film(STAR, "meadow", COURSE)


def test_true_films_are_right() -> None:
    films = FilmWorld("heldout", length=64, seed=11).films(range(4))
    table = FilmTable.of([judge_film(paint_film(film), film) for film in films], films)
    assert table.right == table.found == table.on_course == 1.0
    assert table.correlation == 1.0 and table.change < 0.1 and table.drift < 0.1


def test_another_thing_or_colour_is_wrong() -> None:
    true = paint_film(SHOWN)
    assert judge_film(true, SHOWN).right == 1.0
    for other in (replace(STAR, name="pentagon"), replace(STAR, colour="blue"), Thing("fish")):
        mixed = np.concatenate([true[:5], paint_film(Film(other, "meadow", COURSE))[5:]])
        assert judge_film(mixed, SHOWN).right == 5 / 8, other
    blank = true.copy()
    blank[4:] = 2 * ground("meadow", 64) - 1  # it has gone
    verdict = judge_film(blank, SHOWN)
    assert verdict.found == verdict.right == 0.5


def test_motion_background_and_course() -> None:
    true = paint_film(SHOWN)
    still = judge_film(np.repeat(true[:1], 8, axis=0), SHOWN)
    slow = judge_film(paint_film(replace(SHOWN, course=replace(COURSE, motion=40.0))), SHOWN)
    moving = judge_film(true, SHOWN)
    assert still.step == 0 < slow.step < moving.step
    assert abs(moving.step - COURSE.step) < 0.1 * COURSE.step
    noise = np.random.default_rng(0).normal(0, 0.1, true.shape).astype(np.float32)
    flickering = judge_film(np.clip(true + noise, -1, 1), SHOWN)
    assert moving.change < 0.1 < 3 < flickering.change and moving.drift < 0.1 < flickering.drift
    jumped = np.concatenate([true[:7], true[:1]])
    assert moving.on_course is True and judge_film(jumped, SHOWN).on_course is False

"""Courses of films: by chance of the seed, as asked, and from where the picture's thing is."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ldm.workflows.film_course import MANNERS, course_of, path_from


def test_what_is_not_asked_for_is_the_seeds() -> None:
    courses = [course_of(seed, 100.0, 7.0) for seed in range(200)]
    assert courses == [course_of(seed, 100.0, 7.0) for seed in range(200)]
    assert {course.manner for course in courses} == {"move", "turn", "grow", "shrink"}
    headings = np.array([course.heading for course in courses])
    assert np.histogram(headings, bins=4, range=(0, 360))[0].min() > 25, "to all sides"
    assert {(course.motion, course.fps) for course in courses} == {(100.0, 7.0)}, "how fast is as asked, always"


def test_what_is_asked_for() -> None:
    asked = course_of(3, 100.0, 7.0, heading=90.0)
    chance = course_of(3, 100.0, 7.0)
    assert asked.heading == 90 and asked.manner == chance.manner
    turns = [course_of(3, 255.0, 7.0, 90.0, manner).path(4) for manner in MANNERS]
    moved, right, left, larger, smaller = (path[-1] for path in turns)
    assert moved[2] == 0 and right[2] > 0 and left[2] == -right[2]
    assert larger[3] > 0 and smaller[3] == pytest.approx(-larger[3], rel=0.2)


def test_it_begins_where_the_thing_is_and_bounces_off_the_edge() -> None:
    picture = np.full((128, 128, 3), 220, np.uint8)
    picture[40:80, 70:110] = (30, 60, 200)
    path = path_from(Image.fromarray(picture), course_of(0, 255.0, 7.0, 0.0, "move"), 8)
    assert path[0] == pytest.approx((90 / 128, 60 / 128, 0, 0), abs=0.02)
    assert path[:, 0].max() <= 1 - 19 / 128, "its right edge stays inside"
    assert np.diff(path[:, 0])[0] > 0 > np.diff(path[:, 0])[-1], "to the right, and back"
    assert np.allclose(path[:, 1], path[0, 1])


def test_headings_and_speed_are_the_same_in_a_wide_picture() -> None:
    picture = np.full((64, 128, 3), 220, np.uint8)
    picture[24:40, 40:56] = (30, 60, 200)
    course = course_of(0, 100.0, 7.0, 45.0, "move")
    path = path_from(Image.fromarray(picture), course, 4)
    steps = np.diff(path[:, :2], axis=0) * (128, 64)  # pixels
    assert np.allclose(steps[:, 0], steps[:, 1]) and np.allclose(np.hypot(*steps.T), course.step * 64)


def test_a_picture_with_nothing_in_it_moves_about_its_middle() -> None:
    path = path_from(Image.new("RGB", (64, 64), "white"), course_of(0, 255.0, 7.0), 3)
    assert path[0] == pytest.approx((0.5, 0.5, 0, 0)) and np.hypot(*(path[1] - path[0])[:2]) > 0.02


@pytest.mark.parametrize("manner", ["grow", "shrink"])
def test_a_small_thing_in_a_corner_begins_there_and_changes_its_size(manner: str) -> None:
    picture = np.full((128, 128, 3), 220, np.uint8)
    picture[6:30, 6:30] = (200, 30, 30)
    path = path_from(Image.fromarray(picture), course_of(1, 200.0, 7.0, manner=manner), 8)
    assert np.isfinite(path).all() and path[0, :2] == pytest.approx((18 / 128, 18 / 128), abs=0.02)
    assert np.all(np.diff(path[:3, 3]) * (1 if manner == "grow" else -1) > 0.01)


def test_what_fills_a_picture_still_has_a_path() -> None:
    picture = np.full((64, 64, 3), 220, np.uint8)
    picture[4:60, 4:60] = (30, 60, 200)
    path = path_from(Image.fromarray(picture), course_of(0, 255.0, 7.0, 30.0, "move"), 8)
    assert np.isfinite(path).all() and (np.abs(path[:, :2] - 0.5) <= 0.07).all() and np.ptp(path[:, 0]) > 0.01

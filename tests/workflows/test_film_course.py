"""Courses of films: by chance of the seed, as asked, and from where the picture's thing is."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ldm.workflows.film_course import MANNERS, course_from, course_of


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
    course = course_from(Image.fromarray(picture), course_of(0, 255.0, 7.0, 0.0, "move"))
    assert (course.x, course.y) == pytest.approx((90 / 128, 60 / 128), abs=0.02)
    path = course.path(8)
    assert path[0, 0] == pytest.approx(course.x) and path[:, 0].max() <= 1 - course.side / 2 + 1e-6
    assert np.diff(path[:, 0])[0] > 0 > np.diff(path[:, 0])[-1], "to the right, and back"
    assert np.allclose(path[:, 1], course.y)


def test_a_picture_with_nothing_in_it_moves_about_its_middle() -> None:
    course = course_from(Image.new("RGB", (64, 64), "white"), course_of(0, 255.0, 7.0))
    assert (course.x, course.y, course.side) == (0.5, 0.5, 0.5)


def test_a_thing_in_a_corner_stays_there_at_first() -> None:
    picture = np.full((128, 128, 3), 220, np.uint8)
    picture[6:30, 6:30] = (200, 30, 30)
    path = course_from(Image.fromarray(picture), course_of(1, 200.0, 7.0)).path(8)
    assert np.isfinite(path).all() and path[0, :2] == pytest.approx((18 / 128, 18 / 128), abs=0.02)

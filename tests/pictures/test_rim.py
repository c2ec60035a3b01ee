"""Where things stand in pictures, told by the rim."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ldm.pictures.rim import thing_box
from ldm.world.film import FilmWorld, paint_film, silhouettes


def test_things_of_the_world_are_found_before_any_background() -> None:
    errors = []
    for film in FilmWorld("heldout", size=128, length=24, seed=5).films(range(24)):
        picture = ((paint_film(film, 1, 128)[0] + 1) * 127.5).round().astype(np.uint8)
        box = thing_box(Image.fromarray(picture))
        rows, columns = np.nonzero(silhouettes(film, 1, 128)[0] > 0.5)
        true = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 128
        errors.append(1.0 if box is None else float(np.abs(np.array(box) - true).max()))
    assert np.median(errors) < 0.02 and np.mean(np.array(errors) < 0.1) >= 0.75, sorted(errors)


def test_a_wide_picture_and_one_with_nothing_in_it() -> None:
    picture = np.full((60, 120, 3), 200, np.uint8)
    assert thing_box(Image.fromarray(picture)) is None
    picture[20:40, 80:100] = (200, 30, 30)
    box = thing_box(Image.fromarray(picture))
    assert box is not None and np.allclose(box, (80 / 120, 20 / 60, 100 / 120, 40 / 60), atol=0.02)


def test_a_thing_nearly_in_the_colour_of_the_far_end_of_a_graded_background() -> None:
    down = np.linspace(0, 1, 128)[:, None, None]
    picture = (np.array([30, 70, 210]) * (1 - down) + 245 * down) * np.ones((128, 128, 1))
    picture[85:110, 20:70] = picture[12, 0]  # some 9 CIELAB from the top, 80 pixels away
    box = thing_box(Image.fromarray(picture.astype(np.uint8)))
    assert box is not None and np.allclose(box, (20 / 128, 85 / 128, 70 / 128, 110 / 128), atol=0.02)

"""Where things stand in pictures, told by the rim."""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

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
    picture[85:110, 20:70] = picture[12, 0]  # 10 CIELAB from the top, 80 pixels away
    box = thing_box(Image.fromarray(picture.astype(np.uint8)))
    assert box is not None and np.allclose(box, (20 / 128, 85 / 128, 70 / 128, 110 / 128), atol=0.02)


def test_a_thing_before_an_uneven_background() -> None:
    """As a model draws them: parts in the middle are a little unlike all of the rim, and are not the thing."""
    for seed in range(4):
        uneven = gaussian_filter(np.random.default_rng(seed).normal(0, 1, (128, 128)), 12)
        picture = np.clip(150 + 8 * (uneven / uneven.std())[..., None] * np.ones(3), 0, 255)
        picture[50:80, 40:75] = (210, 40, 40)
        box = thing_box(Image.fromarray(picture.astype(np.uint8)))
        assert box is not None and np.allclose(box, (40 / 128, 50 / 128, 75 / 128, 80 / 128), atol=0.02), seed

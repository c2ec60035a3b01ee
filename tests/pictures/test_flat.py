"""What is smooth in a content is smooth in its result."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ldm.pictures.flat import keep_flat

SIDE = 96


def picture(values: NDArray[np.float64]) -> Image.Image:
    """Values [H, W, 3] of 255 as a picture."""
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))


def array(image: Image.Image) -> NDArray[np.float64]:
    return np.asarray(image, np.float64)


def plain(*colour: float) -> NDArray[np.float64]:
    return np.tile(np.asarray(colour, np.float64), (SIDE, SIDE, 1))


def mesh() -> NDArray[np.float64]:
    """A dark line at every border of cells of 8 pixels, and scratches."""
    lines = np.zeros((SIDE, SIDE, 1))
    lines[::8], lines[:, ::8] = -8, -8
    lines[np.arange(20, 60), np.arange(20, 60)] = 40
    return lines


def noise(deviation: float) -> NDArray[np.float64]:
    return np.random.default_rng(0).normal(0, deviation, (SIDE, SIDE, 3))


def test_a_mesh_and_scratches_leave_a_clear_sky_in_its_own_colours() -> None:
    sky, made = plain(90, 120, 200), plain(140, 90, 60) + mesh()
    kept = array(keep_flat(picture(made), picture(sky)))
    assert made.std((0, 1)).max() > 4
    assert kept.std((0, 1)).max() < 1.5
    assert np.abs(kept.mean((0, 1)) - made.mean((0, 1))).max() < 1


def test_what_has_grain_stays_as_it_was_made() -> None:
    made = picture(plain(140, 90, 60) + mesh())
    kept = keep_flat(made, picture(plain(120, 120, 120) + noise(25)))
    assert np.abs(array(kept) - array(made)).max() <= 1


def test_no_colour_runs_over_an_outline() -> None:
    left = np.arange(SIDE)[None, :, None] < SIDE // 2
    content = np.where(left, plain(40, 40, 40), plain(200, 200, 200))
    clean = np.where(left, plain(200, 60, 40), plain(40, 80, 220))
    off = np.abs(array(keep_flat(picture(clean + mesh()), picture(content))) - (clean + mesh().mean())).max(-1)
    assert off[:, : SIDE // 2 - 6].max() < 5 and off[:, SIDE // 2 + 6 :].max() < 5  # up to six pixels beside it
    assert off[:, SIDE // 2 - 6 : SIDE // 2 + 6].max() < 50  # and there what was made of it


def test_a_share_is_so_far_on_the_way() -> None:
    content, made = picture(plain(90, 120, 200)), picture(plain(140, 90, 60) + mesh())
    ends = array(made), array(keep_flat(made, content))
    assert np.abs(array(keep_flat(made, content, 0.25)) - (0.75 * ends[0] + 0.25 * ends[1])).max() <= 1
    assert keep_flat(made, content, 0.0) is made


@pytest.mark.parametrize(("size", "of"), [((96, 64), (48, 32)), ((8, 8), (8, 8)), ((96, 16), (200, 40))])
def test_any_size_of_both(size: tuple[int, int], of: tuple[int, int]) -> None:
    made = Image.effect_noise(size, 20).convert("RGB")
    kept = keep_flat(made, Image.new("L", of, 128))
    assert kept.size == size and array(kept).std() < 0.8 * array(made).std()

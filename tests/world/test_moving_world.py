"""Films of the rendered world: what moves moves as the numbers say, what stands still stays as it is."""

from __future__ import annotations

import numpy as np
import pytest

from ldm.util import UserError
from ldm.world.film import Film, FilmWorld, is_held_out, paint_film, silhouettes
from ldm.world.grounds import ground
from ldm.world.motion import FASTEST, MOST_MOTION, Course, bounced
from ldm.world.scene import Thing

CIRCLE = Thing("circle", None, None, "red", "plain")


def film(thing: Thing = CIRCLE, on: str = "blue", **course: object) -> Film:
    usual = {"x": 0.4, "y": 0.5, "side": 0.4, "heading": 0.0, "motion": 128.0, "fps": 8.0}
    return Film(thing, on, Course(**usual | course))  # type: ignore[arg-type]


def middles(shown: Film, frames: int = 8) -> np.ndarray:
    """Where the thing's mass is in each frame, x and y in pixels [T, 2]."""
    covered = silhouettes(shown, frames)
    axis = np.arange(covered.shape[1]) + 0.5
    mass = covered.sum((1, 2))
    return np.stack([(covered.sum(1) * axis).sum(1) / mass, (covered.sum(2) * axis).sum(1) / mass], 1)


def test_a_film_is_a_function_of_seed_and_index() -> None:
    first, again, other = FilmWorld(seed=3, length=20), FilmWorld(seed=3, length=50), FilmWorld(seed=4, length=20)
    for index in (0, 7):
        assert np.array_equal(first[index]["frames"], again[index]["frames"])
        assert not np.array_equal(first[index]["frames"], other[index]["frames"])
    item = first[0]
    assert item["frames"].shape == (8, 64, 64, 3) and item["frames"].dtype == np.float32
    assert np.abs(item["frames"]).max() <= 1 and 0 <= item["motion"] <= 255 and item["fps"] >= 4


def test_the_middle_goes_as_far_as_the_motion_number_says() -> None:
    for motion, fps in ((0.0, 8.0), (64.0, 8.0), (200.0, 12.0)):
        steps = np.diff(middles(film(motion=motion, fps=fps, x=0.3), 5)[:, 0])
        assert steps == pytest.approx(motion / MOST_MOTION * FASTEST / fps * 64, abs=0.05)


def test_it_bounces_off_the_edges() -> None:
    places = middles(film(motion=255.0, fps=4.0, x=0.6), 8)[:, 0]
    assert places.max() <= 64 - 0.2 * 64 + 0.6 and places.min() >= 0.2 * 64 - 0.6
    assert np.sign(np.diff(places)).min() == -1 and np.sign(np.diff(places)).max() == 1
    assert bounced(np.array([0.9, 1.3, 2.1]), 0.2) == pytest.approx([0.7, 0.3, 0.7])


def test_it_turns_and_grows() -> None:
    square = Thing("rectangle", None, None, "red", "plain")
    turned = silhouettes(film(square, manner="turn", motion=255.0, fps=4.0))
    width = (turned.sum(1) > 0.5).sum(1)
    assert width[0] > width[2]  # a rectangle on its way to stand upright
    area = {m: silhouettes(film(manner=m, motion=255.0, fps=4.0)).sum((1, 2)) for m in ("move", "grow", "shrink")}
    assert area["grow"][-1] > 1.3 * area["move"][-1] > 1.3 * 1.3 * area["shrink"][-1]


def test_the_background_stays() -> None:
    shown = film(on="meadow", motion=200.0)
    pictures, covered = paint_film(shown), silhouettes(shown)
    away = covered.max(0) < 0.01
    away &= np.roll(away, 2, 0) & np.roll(away, -2, 0) & np.roll(away, 2, 1) & np.roll(away, -2, 1)  # but its outline
    assert away.mean() > 0.3
    assert np.abs(pictures[:, away] - (ground("meadow", 64) * 2 - 1)[away]).max() < 1e-5


def test_what_would_not_stand_out_is_outlined_in_every_frame() -> None:
    shown = film(Thing("circle", None, None, "white", "plain"), on="white", motion=150.0)
    for picture, covered in zip(paint_film(shown), silhouettes(shown), strict=True):
        assert picture[covered > 0.99].min() > 0.9 and picture.min() < -0.5


def test_training_never_sees_what_is_held_out() -> None:
    train, held = FilmWorld("train", length=400), FilmWorld("heldout", length=100)
    assert not any(shown.held_out for shown in train.films(range(400)))
    assert all(shown.held_out for shown in held.films(range(100)))
    pairs = [is_held_out(f"red {name}", colour) for name in ("circle", "star") for colour in ("blue", "green", "white")]
    assert not all(pairs)


def test_sentences_are_dropped_as_often_as_asked() -> None:
    assert not any(item["caption"] for item in FilmWorld(caption_dropout=1.0, length=30).labels_of(range(30)))
    assert all(item["caption"] for item in FilmWorld(caption_dropout=0.0, length=30).labels_of(range(30)))


@pytest.mark.parametrize(
    "wrong", [{"split": "test"}, {"frames": 1}, {"size": 40}, {"shapes": 2.0}, {"length": 0}, {"objects": 1}]
)
def test_wrong_settings(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError):
        FilmWorld(**wrong)  # type: ignore[arg-type]

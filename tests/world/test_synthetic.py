"""Dead leaves, 1/f noise and pale pictures."""

from __future__ import annotations

import numpy as np
import pytest

from ldm.util import UserError
from ldm.world.synthetic import Faded, SyntheticPictures, dead_leaves, fade, pink_noise, soft_blobs


def slope(picture: np.ndarray) -> float:
    """Of the logarithm of amplitude over that of frequency, for the brightness."""
    grey = picture.mean(-1) - picture.mean()
    size = len(grey)
    amplitude = np.abs(np.fft.fft2(grey))
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None])
    bands = [(amplitude[(frequency > low) & (frequency <= 2 * low)]).mean() for low in (0.03, 0.06, 0.12, 0.24)]
    return float(np.polyfit(np.log([1, 2, 4, 8]), np.log(bands), 1)[0])


def test_spectra_fall_as_those_of_photographs() -> None:
    for make in (dead_leaves, pink_noise):
        slopes = [slope(make(128, np.random.default_rng(i))) for i in range(12)]
        assert -1.8 < np.mean(slopes) < -0.7, make.__name__


def test_items_repeat_and_are_pictures() -> None:
    data, again = SyntheticPictures(48, 20, seed=3), SyntheticPictures(48, 20, seed=3)
    for i in range(20):
        image = data[i]["image"]
        assert image.shape == (48, 48, 3) and image.dtype == np.float32 and np.abs(image).max() <= 1
        assert np.array_equal(image, again[i]["image"]) and image.std() > 0.05
    assert not np.array_equal(data[0]["image"], SyntheticPictures(48, 20, seed=4)[0]["image"])
    with pytest.raises(IndexError):
        data[20]
    with pytest.raises(UserError, match="size >= 8"):
        SyntheticPictures(4)


def test_kinds_are_taken_in_turn() -> None:
    usual = SyntheticPictures(32, 12, seed=3)
    blobs = SyntheticPictures(32, 12, seed=3, kinds=["leaves", "noise", "blobs"])
    for number, same in ((0, True), (1, True), (2, False)):
        assert np.array_equal(usual[number]["image"], blobs[number]["image"]) == same
    for kinds in ([], ["clouds"]):
        with pytest.raises(UserError, match=r"kinds of synthetic pictures are leaves, noise, blobs; got (none|clouds)"):
            SyntheticPictures(32, kinds=kinds)


def test_blobs_lie_on_plain_grounds_that_are_often_black() -> None:
    pictures = [soft_blobs(64, np.random.default_rng([5, i])) for i in range(60)]
    black = [picture for picture in pictures if (picture == -1).all(-1).mean() > 0.1]
    assert 10 < len(black) < 30, "where no blob lies on it"
    for picture in pictures:
        assert picture.shape == (64, 64, 3) and picture.dtype == np.float32 and np.abs(picture).max() <= 1
        steps = np.abs(np.diff(picture, axis=0)).max(-1)
        assert picture.std() > 0.02 and (steps < 0.06).mean() > 0.6, "most of it changes slowly"


def test_a_share_of_pictures_is_pale() -> None:
    node = {"target": "ldm.world.synthetic.SyntheticPictures", "params": {"size": 16, "length": 200}}
    plain, pale = SyntheticPictures(16, 200), Faded(node, share=0.4)
    changed = [not np.array_equal(plain[i]["image"], pale[i]["image"]) for i in range(200)]
    assert 0.3 < np.mean(changed) < 0.5 and len(pale) == 200
    for i in np.flatnonzero(changed)[:20]:
        one, other = plain[int(i)]["image"], pale[int(i)]["image"]
        assert other.std() < 0.55 * one.std() and other.mean() > one.mean() - 0.05 and other.max() <= 1
    assert fade(np.full((2, 2, 3), -1, np.float32), np.array([0.0, 1.0])).min() > 0.7
    with pytest.raises(UserError, match="share is between 0 and 1"):
        Faded(node, share=2)

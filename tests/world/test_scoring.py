"""Counting what pictures show, and the disturbances that the scorer learns to see through."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ldm.world.degrade import blur, coarse_patches, degrade, shift_colours, wobble
from ldm.world.labels import labels_of
from ldm.world.scene import Scene, Thing
from ldm.world.scoring import Judgement, mistakes, rows_of, shade_rows, table, wilson


def seen(scene: Scene, probability: float = 0.99) -> Judgement:
    return {name: (value, probability) for name, value in labels_of(scene).items()}


@pytest.mark.parametrize(  # Newcombe 1998, table I, method 3
    ("right", "asked", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_against_published_intervals(right: int, asked: int, low: float, high: float) -> None:
    assert wilson(right, asked) == pytest.approx((low, high), abs=6e-5)
    mirrored = wilson(asked - right, asked)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=6e-5)


def test_wilson_without_pictures_knows_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


STAR = Scene("blue", (Thing("star", "small", "left", "red", "striped"),))
MOON = Scene("black", (Thing("moon", None, None, "cyan", "plain"),))


def test_rows_count_what_was_asked() -> None:
    right = Scene("black", (Thing("moon", "large", "middle", "cyan", "plain"),))
    wrong = Scene("white", (Thing("moon", "large", "middle", "cyan", "dotted"),))
    rows = {row.attribute: row for row in rows_of([STAR, MOON, MOON], [seen(STAR), seen(right, 0.8), seen(wrong)])}
    assert (rows["thing"].right, rows["thing"].asked, rows["thing"].unsure) == (3, 3, 1)
    assert (rows["size"].right, rows["size"].asked) == (1, 1)  # only the star's size was asked for
    assert (rows["background"].right, rows["texture"].right, rows["place"].right) == (2, 2, 3)
    assert (rows["all"].right, rows["all"].asked) == (2, 3)
    assert rows["thing"].confidence == pytest.approx((0.99 + 0.8 + 0.99) / 3)
    assert "66.67%" in table(list(rows.values())).splitlines()[-1]
    found = mistakes(["a", "b", "c"], [STAR, MOON, MOON], [seen(STAR), seen(right), seen(wrong)])
    assert [(m["picture"], m["attribute"], m["asked"], m["seen"]) for m in found] == [
        ("c", "background", "black", "white"),
        ("c", "texture", "plain", "dotted"),
    ]


def test_shades_are_counted_alone_and_with_what_was_asked() -> None:
    wrong = Scene("white", (Thing("moon", "large", "middle", "cyan", "plain"),))
    wishes, judged = [STAR, STAR, MOON], [seen(STAR), seen(STAR), seen(wrong)]
    alone, both = shade_rows(wishes, judged, [True, False, True])
    assert (alone.right, alone.asked) == (2, 3)
    assert (both.right, both.asked) == (1, 3)  # the moon has its shades, but is before another background


def test_no_row_is_made_up() -> None:
    cat = Scene(None, (Thing("cat", "large", "middle"),))
    rows = {row.attribute: row for row in rows_of([cat], [seen(Scene("red", cat.things))])}
    for name in ("background", "colour", "texture"):
        assert rows[name].asked == 0 and math.isnan(rows[name].share)
    assert rows["size"].asked == rows["all"].right == 1


def pictures(n: int = 4) -> torch.Tensor:
    return torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_no_strength_changes_nothing_and_more_changes_more() -> None:
    start = pictures(64)
    still = degrade(start, torch.Generator().manual_seed(1), 0.0)
    torch.testing.assert_close(still, start, atol=1e-4, rtol=0)
    changes = [(degrade(start, torch.Generator().manual_seed(1), s) - start).abs().mean() for s in (0.2, 0.5, 1.0)]
    assert 0.01 < changes[0] < changes[1] < changes[2]
    assert degrade(start, torch.Generator().manual_seed(1)).abs().max() <= 1


def test_each_picture_has_its_own_amount() -> None:
    start, amounts = pictures(), torch.tensor([0.0, 0.5, 1.0, 0.0])
    generator = torch.Generator().manual_seed(0)
    changed = [
        blur(start, amounts),
        wobble(start, 0.05 * amounts, generator),
        shift_colours(start, amounts, generator),
        coarse_patches(start, amounts, generator),
    ]
    for result in changed:
        distance = (result - start).abs().amax((1, 2, 3))
        assert (distance[[0, 3]] < 1e-4).all() and (distance[[1, 2]] > 0.05).all()


def test_blur_is_a_gaussian() -> None:
    impulse = torch.zeros(1, 3, 15, 15)
    impulse[..., 7, 7] = 1
    found = blur(impulse, torch.tensor([0.8]))[0, 1].numpy()
    steps = np.arange(-7, 8)
    kernel = np.where(abs(steps) <= 3, np.exp(-(steps**2) / (2 * 0.64)), 0)
    np.testing.assert_allclose(found, np.outer(kernel, kernel) / kernel.sum() ** 2, atol=1e-6)


def test_coarse_patches_keep_low_frequencies_of_each_patch() -> None:
    flat = torch.full((1, 3, 16, 16), 0.3)
    none = coarse_patches(flat, torch.tensor([1e-3]), torch.Generator().manual_seed(0))
    torch.testing.assert_close(none, flat, atol=0.01, rtol=0)
    fine = torch.tensor([-1.0, 1.0]).repeat(8).expand(1, 3, 16, 16)  # the highest frequency there is
    lost = coarse_patches(fine, torch.tensor([1.0]), torch.Generator().manual_seed(0))
    assert float((lost * fine).mean()) < 0.2  # cosines of a square wave leak a little into low frequencies


def test_colours_get_another_gain_and_offset() -> None:
    grey, white = torch.zeros(2000, 3, 1, 1), torch.ones(2000, 3, 1, 1)
    amounts = torch.full((2000,), 0.1)
    offset, moved = (shift_colours(one, amounts, torch.Generator().manual_seed(0)) for one in (grey, white))
    assert offset.std().item() == pytest.approx(0.07, rel=0.05)
    assert (moved - offset - 1).std().item() == pytest.approx(0.1, rel=0.05)
    assert not torch.allclose(offset[:, 0], offset[:, 1])  # each channel its own

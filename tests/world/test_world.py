"""The rendered world: what is in it, how it looks, what training never sees."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from ldm.util import UserError
from ldm.world.attributes import COLOURS, SHADES, SHAPES, VALUES, Attributes, combinations
from ldm.world.render import render


def lab(colours: dict[str, tuple[int, int, int]]) -> np.ndarray:
    return rgb2lab(np.array(list(colours.values()))[None] / 255.0)[0]


def test_colours_differ_to_the_eye() -> None:
    plain, shades = lab(COLOURS), lab(SHADES)
    for i, j in itertools.combinations(range(len(plain)), 2):
        assert deltaE_ciede2000(plain[i], plain[j]) > 17
    for tone, shade in zip(plain, shades, strict=True):
        assert abs(tone[0] - shade[0]) > 25  # the pattern survives in black and white


def test_the_splits_share_no_triple_and_cover_every_value() -> None:
    train, held = combinations("train"), combinations("heldout")
    assert len(train) + len(held) == len(combinations("all")) == 8 * 90 * 2 * 3
    assert len(held) == len(combinations("all")) // 10
    seen = {(a.shape, a.colour, a.background) for a in train}
    assert not seen & {(a.shape, a.colour, a.background) for a in held}
    for name, values in VALUES.items():
        for part in (train, held):
            counts = [sum(getattr(a, name) == value for a in part) for value in values]
            assert min(counts) > 0.6 * len(part) / len(values)
    for shape, colour in itertools.product(SHAPES, COLOURS):  # every pair of values is still learnt
        assert any(a.shape == shape and a.colour == colour for a in train)


def test_a_combination_that_cannot_be_seen_or_does_not_exist_is_refused() -> None:
    with pytest.raises(UserError, match="cannot be seen on a red background"):
        Attributes("star", "red", "red")
    with pytest.raises(UserError, match="no shape 'dodecahedron'; it has: circle"):
        Attributes("dodecahedron", "red", "blue")
    with pytest.raises(UserError, match="no split 'test'"):
        combinations("test")


def test_agreement_leaves_the_size_open() -> None:
    star = Attributes("star", "red", "blue", "small", "striped")
    assert star.agrees(Attributes("star", "red", "blue", None, "striped"))
    assert not star.agrees(Attributes("star", "red", "blue", "large", "striped"))
    assert not star.agrees(Attributes("star", "red", "blue", "small", "plain"))


def test_a_batch_draws_what_single_calls_draw() -> None:
    items = combinations()[::61]
    offsets = np.random.default_rng(0).uniform(-0.1, 0.1, (len(items), 2)).astype(np.float32)
    batch = render(items, 48, offsets)
    for i, item in enumerate(items):
        np.testing.assert_allclose(batch[i : i + 1], render([item], 48, offsets[i : i + 1]), atol=1e-6)


@pytest.mark.parametrize("size", [64, 96, 128])
def test_pictures_have_their_colours(size: int) -> None:
    items = combinations()[::53]
    pictures = ((render(items, size) + 1) * 127.5).round().astype(int)
    for item, picture in zip(items, pictures, strict=True):
        assert tuple(picture[0, 0]) == COLOURS[item.background]
        assert tuple(picture[size // 2, 0]) == COLOURS[item.background]
        object_pixels = (picture == COLOURS[item.colour]).all(-1).sum()
        shade_pixels = (picture == SHADES[item.colour]).all(-1).sum()
        assert object_pixels > 0.02 * size * size
        assert (shade_pixels > 0.01 * size * size) == (item.texture != "plain")


def test_objects_are_centred_and_inside_and_sized() -> None:
    for shape in SHAPES:
        area = {}
        for size in ("small", "large"):
            inside = render([Attributes(shape, "white", "black", size)], 64)[0, :, :, 0] > 0
            rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
            for edge in (rows, columns):
                assert edge[0] > 0 and edge[-1] < 63
                assert abs((edge[0] + edge[-1]) / 2 - 31.5) <= 2
            area[size] = inside.sum()
        assert area["large"] > 2.5 * area["small"]


def test_shapes_differ_by_many_pixels() -> None:
    for size in ("small", "large"):
        masks = render([Attributes(s, "white", "black", size) for s in SHAPES])[..., 0] > 0
        for i, j in itertools.combinations(range(len(SHAPES)), 2):
            union, common = (masks[i] | masks[j]).sum(), (masks[i] & masks[j]).sum()
            assert common / union < 0.85, (SHAPES[i], SHAPES[j], size)


def test_edges_are_smooth() -> None:
    picture = render([Attributes("circle", "white", "black", "large")])[0, :, :, 0]
    between = (picture > -0.7) & (picture < 0.8)
    assert 40 < between.sum() < 300
    coarse = render([Attributes("circle", "white", "black", "large")], 256)[0, :, :, 0].reshape(64, 4, 64, 4)
    np.testing.assert_allclose(picture, coarse.mean((1, 3)), atol=0.2)

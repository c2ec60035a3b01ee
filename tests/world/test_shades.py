"""Shades are those of what is seen on a picture, or they are not."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ldm.world.grounds import ground
from ldm.world.labels import ASTRAY, NOTHING, OWN, labels_of, scene_seen
from ldm.world.paint import box, is_outlined, layer, paint, silhouette
from ldm.world.scene import Scene, Thing
from ldm.world.scenes import SceneWorld
from ldm.world.shades import has_its_shades, shifts, shown_share
from tests.world.recolour import recoloured


def scenes(n: int, two: float = 0.4) -> list[Scene]:
    contents = SceneWorld("heldout", length=n, seed=22, figures=0.0, two=two, shapes=0.3).contents(range(n))
    return [content for content in contents if isinstance(content, Scene)]


def test_labels_name_the_scene_that_they_are_of() -> None:
    for scene in scenes(60):
        assert scene_seen(labels_of(scene)) == scene
    lone, pair = scenes(1, two=0.0)[0], scenes(1, two=1.0)[0]
    assert scene_seen(labels_of(lone) | {"layout": ASTRAY}) is None
    assert scene_seen(labels_of(lone) | {"layout": "above"}) is None  # two places and one thing
    assert scene_seen(labels_of(pair) | {"second": NOTHING}) is None
    assert scene_seen(labels_of(lone) | {"first": "star", "first colour": OWN}) is None
    assert scene_seen(labels_of(lone) | {"first": "cat", "first colour": "red"}) is not None  # a cat has its own


def test_true_renders_have_their_shades_and_soft_ones_too() -> None:
    shown = scenes(40)
    for scene, picture in zip(shown, paint(shown, 64), strict=True):
        assert shifts(picture, scene) == (0.0,) * (1 + len(scene.things))
    soft = gaussian_filter(paint(shown, 64), (0, 0.9, 0.9, 0))
    assert np.mean([has_its_shades(p, labels_of(s)) for p, s in zip(soft, shown, strict=True)]) >= 0.9


@pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB")  # colours that no screen shows are tried too
def test_another_shade_is_noticed_where_it_is() -> None:
    shown = scenes(14)
    for scene, picture in zip(shown, paint(shown, 64), strict=True):
        inside = silhouette(scene, 64) > 0.02
        ground, *things = shifts(recoloured(picture, ~inside, 8.0), scene)
        assert 7 < ground < 9 and max(things) < 5, (scene, ground, things)
        left, top, side = box(str(scene.things[0].size), str(scene.things[0].place), 64)
        first = np.zeros_like(inside)
        first[top : top + side, left : left + side] = inside[top : top + side, left : left + side]
        ground, *things = shifts(recoloured(picture, first, 8.0), scene)
        assert things[0] > 5 and ground < 0.5 and all(other < 0.5 for other in things[1:]), (scene, ground, things)
        assert not has_its_shades(recoloured(picture, first, 8.0), labels_of(scene))
        assert has_its_shades(recoloured(picture, first, 2.0), labels_of(scene))


def test_a_thing_that_is_not_there_has_no_shade() -> None:
    scene = Scene("yellow", (Thing("penguin", "small", "left"), Thing("cat", "small", "right")))
    alone = paint([replace(scene, things=scene.things[:1])], 64)[0]
    assert shifts(alone, scene)[2] == math.inf and max(shifts(alone, scene)[:2]) < 0.01
    assert not has_its_shades(alone, labels_of(scene))


def test_an_outline_that_is_missing_is_noticed() -> None:
    """Shades are means, which a thin outline hardly moves."""
    scene = Scene("checked orange", (Thing("camel", "small", "left"),))
    assert is_outlined(scene.things[0], "checked orange", 128)
    true = paint([scene], 128)[0]
    assert shown_share(true, scene) == 1 and has_its_shades(true, labels_of(scene))
    left, top, side = box("small", "left", 128)
    plain = ground("checked orange", 128).copy()
    sprite = layer(scene.things[0], side, 128)
    under = plain[top : top + side, left : left + side]
    under[:] = under * (1 - sprite[..., 3:]) + sprite[..., :3]
    assert shown_share(plain * 2 - 1, scene) < 0.6 and not has_its_shades(plain * 2 - 1, labels_of(scene))

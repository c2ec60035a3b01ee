"""Scenes of the second world: how they are drawn, which are never shown, and that they repeat."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from skimage.color import deltaE_ciede2000, rgb2lab

from ldm.draws import uniform
from ldm.util import UserError
from ldm.world.draw_scenes import Figure, Shares, draw_scene, draws, paint_figure
from ldm.world.figures import SHAPE_DISTANCES, coverage, polygon
from ldm.world.grounds import ground, rgb
from ldm.world.objects import objects
from ldm.world.paint import box, hidden_share, is_outlined, layer, paint, silhouette
from ldm.world.scene import (
    COLOURS,
    GROUNDS,
    HELD_OUT,
    KEPT_OUT,
    PLACES,
    SHADES,
    SHAPES,
    TEXTURES,
    Scene,
    Thing,
    held_out_grounds,
)
from ldm.world.scenes import SceneWorld


def one(name: str = "cat", ground: str = "blue", size: str = "small", place: str = "middle") -> Scene:
    return Scene(ground, (Thing(name, size, place, *(("red", "plain") if name in SHAPES else ())),))


def test_the_world_is_rich() -> None:
    assert len(objects()) >= 120 and len(SHAPES) >= 10 and len(COLOURS) >= 10 and len(TEXTURES) >= 4
    kinds = {about.kind for about in GROUNDS.values()}
    assert len(GROUNDS) >= 10 and {"plain", "striped", "dotted", "checked", "graded", "meadow"} <= kinds
    lab = rgb2lab(np.array([*COLOURS.values()])[None] / 255.0)[0]
    for i, first in enumerate(lab):
        assert min(deltaE_ciede2000(first, second) for j, second in enumerate(lab) if i != j) > 14


@pytest.mark.parametrize("size", [64, 96, 128])
def test_things_stand_on_the_grid_of_cells_and_inside(size: int) -> None:
    for place in PLACES:
        for name in ("small", "large"):
            left, top, side = box(name, place, size)
            assert left % 8 == top % 8 == side % 8 == 0
            assert min(left, top) >= 0 and max(left, top) + side <= size
    assert box("large", "middle", size)[2] >= 0.75 * size and box("small", "middle", size)[2] == size // 2
    assert box("small", "left", size)[0] == 0 and box("small", "bottom right", size)[:2] == (size // 2, size // 2)


@pytest.mark.parametrize("size", [64, 96, 128])
def test_the_picture_is_background_outside_and_the_drawing_inside(size: int) -> None:
    for i, name in enumerate([*list(objects())[::9], *SHAPES]):
        place = list(PLACES)[i % 9]
        scene = one(name, "black", "small", place)
        picture, covered = (paint([scene], size)[0] + 1) / 2, silhouette(scene, size)
        left, top, side = box("small", place, size)
        outside = np.ones((size, size), bool)
        outside[top : top + side, left : left + side] = False
        assert np.allclose(picture[outside], rgb(COLOURS["black"]), atol=1e-6)
        sprite = layer(scene.things[0], side, size)
        solid = sprite[..., 3] == 1
        assert np.allclose(picture[top : top + side, left : left + side][solid], sprite[solid][:, :3], atol=1e-6)
        assert not covered[outside].any() and covered.sum() > 0.03 * size * size / 4


def test_a_batch_draws_what_single_calls_draw() -> None:
    scenes = [scene for scene in SceneWorld(length=80, seed=4).contents(range(80)) if isinstance(scene, Scene)]
    batch = paint(scenes, 64)
    for i, scene in enumerate(scenes):
        assert np.array_equal(batch[i], paint([scene], 64)[0])
    assert batch.min() >= -1 and batch.max() <= 1


def test_what_would_not_stand_out_has_an_outline() -> None:
    plain, hidden = (layer(Thing("circle", "small", "middle", c, "plain"), 32, 64) for c in ("red", "white"))
    white = np.broadcast_to(rgb(COLOURS["white"]), (32, 32, 3))
    assert hidden_share(hidden, white) > 0.9 and hidden_share(plain, white) == 0
    for name in ("sheep", "ghost", "circle"):
        thing = Thing(name, "small", "middle", *(("white", "plain") if name == "circle" else ()))
        picture = (paint([Scene("white", (thing,))], 64)[0] + 1) / 2
        outside = silhouette(Scene("white", (thing,)), 64) < 0.01
        assert (outside & (np.abs(picture - COLOURS["white"][0] / 255).max(-1) > 0.3)).sum() > 40, name


def test_shapes_textures_and_colours_can_be_told_apart() -> None:
    masks = [coverage(distance, 48) > 0.5 for distance in SHAPE_DISTANCES.values()]
    for i, first in enumerate(masks):
        assert 0.1 < first.mean() < 0.9
        for second in masks[i + 1 :]:
            assert (first & second).sum() / (first | second).sum() < 0.9
    for texture in TEXTURES:
        sprite = layer(Thing("square", "large", "middle", "blue", texture), 48, 64)
        second = np.abs(sprite[..., :3] - rgb(SHADES["blue"])).max(-1) < 0.02
        assert (0.1 < second.sum() / (sprite[..., 3] > 0.99).sum() < 0.65) == (texture != "plain"), texture


def test_the_distance_of_a_polygon_is_that_of_a_square() -> None:
    x, y = np.meshgrid(*2 * [np.linspace(-1.4, 1.4, 29, dtype=np.float32)])
    corners = np.array([(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)], dtype=np.float32)
    beyond = np.maximum(np.abs(x) - 0.8, 0), np.maximum(np.abs(y) - 0.8, 0)
    inside = np.minimum(np.maximum(np.abs(x), np.abs(y)) - 0.8, 0)
    for order in (corners, corners[::-1]):
        np.testing.assert_allclose(polygon(order)(x, y), np.hypot(*beyond) + inside, atol=1e-5)


def test_backgrounds_keep_their_average_and_are_not_written_to() -> None:
    for name in GROUNDS:
        small, large = ground(name, 64), ground(name, 128)
        assert np.abs(small.mean((0, 1)) - large.mean((0, 1))).max() < 0.02, name
        before = small.copy()
        paint([one("dog", name, "large")], 64)
        assert np.array_equal(ground(name, 64), before)


def test_training_never_sees_what_is_held_out() -> None:
    train = SceneWorld("train", length=6000, seed=1)
    shown = {t for scene in train.contents(range(6000)) if isinstance(scene, Scene) for t in scene.triples}
    assert len(shown) > 4000
    assert not [t for t in shown if t[1] in held_out_grounds(t[0], str(t[2]))]
    held = [s for s in SceneWorld("heldout", length=1500, seed=1).contents(range(1500)) if isinstance(s, Scene)]
    assert all(scene.held_out for scene in held)
    assert {len(scene.things) for scene in held} == {1, 2}
    assert len({scene.ground for scene in held}) == len(GROUNDS)


def test_the_split_is_even() -> None:
    counts = dict.fromkeys(GROUNDS, 0)
    for name in objects():
        for place in PLACES:
            held = held_out_grounds(name, place)
            assert len(held) == HELD_OUT
            for ground_name in held:
                counts[ground_name] += 1
    expected = len(objects()) * len(PLACES) * HELD_OUT / len(GROUNDS)
    assert min(counts.values()) > 0.6 * expected and max(counts.values()) < 1.5 * expected


def test_concepts_that_are_taught_later_are_not_shown() -> None:
    world = SceneWorld(length=8000, shapes=1.0, two=0.1, figures=0.3)
    contents = world.contents(range(8000))
    things = [thing for c in contents if isinstance(c, Scene) for thing in c.things]
    assert not {(thing.name, thing.texture) for thing in things} & KEPT_OUT
    figures = [c for c in contents if isinstance(c, Figure)]
    assert len(figures) > 2000 and not [f for f in figures if (f.kind, f.texture) == ("blob", "checked")]


def test_shares_are_kept_and_everything_is_drawn() -> None:
    world = SceneWorld(length=6000, shapes=0.3, two=0.25, figures=0.1)
    contents = world.contents(range(6000))
    scenes = [c for c in contents if isinstance(c, Scene)]
    assert abs(len(scenes) / 6000 - 0.9) < 0.015
    assert abs(sum(len(s.things) == 2 for s in scenes) / len(scenes) - 0.25) < 0.02
    singles = [s.things[0] for s in scenes if len(s.things) == 1]
    assert abs(sum(t.is_shape for t in singles) / len(singles) - 0.3) < 0.025
    assert {t.name for s in scenes for t in s.things} == {*objects(), *SHAPES}
    assert {t.place for t in singles} == set(PLACES)
    assert all(s.relation for s in scenes if len(s.things) == 2)
    few = SceneWorld(length=400, objects=10, shapes=0.0).contents(range(400))
    assert {t.name for s in few if isinstance(s, Scene) for t in s.things} == set(list(objects())[:10])


def test_an_item_depends_on_seed_and_index_only() -> None:
    options: dict[str, Any] = {"length": 300, "language": "mixed", "caption_dropout": 0.2, "figures": 0.2, "size": 32}
    first, second, other = SceneWorld(**options), SceneWorld(**options), SceneWorld(**options, seed=1)
    batch = first.__getitems__(range(100, 130))
    for i, item in zip(range(100, 130), batch, strict=True):
        assert second[i]["caption"] == item["caption"] and np.array_equal(second[i]["image"], item["image"])
        assert item["image"].shape == (32, 32, 3) and item["image"].dtype == np.float32
    assert any(other[i]["caption"] != item["caption"] for i, item in zip(range(100, 130), batch, strict=True))
    with pytest.raises(IndexError):
        first[300]
    random.seed(5)
    once = [first.labels(7)["caption"] for _ in range(8)]
    random.seed(5)
    assert once == [second.labels(7)["caption"] for _ in range(8)] and len(set(once)) > 4


def test_sentences_of_many_items_are_of_those_items() -> None:
    world = SceneWorld(length=300, seed=7, plain_sentences=True, figures=0.0)
    indices = [5, 250, 17]
    assert [label["caption"] for label in world.labels_of(indices)] == [world[i]["caption"] for i in indices]
    empty = SceneWorld(length=300, seed=7, caption_dropout=0.5).labels_of(range(300))
    assert sum(label["caption"] == "" for label in empty) == pytest.approx(150, abs=40)


def test_figures_fill_the_space_between_the_named_things() -> None:
    world = SceneWorld(length=200, figures=1.0)
    figures = [c for c in world.contents(range(200)) if isinstance(c, Figure)]
    assert {f.kind for f in figures} == {"polygon", "rosette", "blob", "gear"}
    assert {f.texture for f in figures} == set(TEXTURES)
    tones = torch.tensor([f.tones for f in figures])
    assert tones.std(0).min() > 0.2
    for figure in figures[:40]:
        picture = paint_figure(figure, 64)
        changed = np.abs((picture + 1) / 2 - ground(figure.ground, 64)).max(-1) > 0.05
        assert changed.mean() > 0.02 and np.abs(picture).max() <= 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Thing("dragon"), "no thing 'dragon'"),
        (lambda: Thing("cat", colour="red"), "a cat has its own colours"),
        (lambda: Thing("cat", place="outside"), "no place 'outside'; it has: middle"),
        (lambda: Scene("plaid", (Thing("cat"),)), "no background 'plaid'"),
        (lambda: Scene("red", ()), "one thing or two, not 0"),
        (lambda: paint([Scene("red", (Thing("cat", "small"),))]), "leaves something open"),
        (lambda: paint([one()], 72), "multiple of 16"),
        (lambda: SceneWorld(cast(Any, "test")), "no split 'test'"),
        (lambda: SceneWorld(two=2.0), "two is a share between 0 and 1"),
        (lambda: SceneWorld(outlined=-1.0), "outlined is a share between 0 and 1"),
        (lambda: SceneWorld(objects=500), "the world has 125 objects"),
        (lambda: SceneWorld(language="fr"), "no language 'fr'"),
        (lambda: SceneWorld(length=0), "length >= 1"),
    ],
)
def test_what_the_world_does_not_have_is_named(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=message):
        make()


def test_the_same_draws_are_the_same_scene_in_any_split_but_for_the_background() -> None:
    names = tuple(objects())
    for row in draws(3, np.arange(50)):
        seen, held = (draw_scene(row, split, Shares(), names) for split in ("train", "heldout"))
        assert seen.things == held.things and not seen.held_out and held.held_out
        assert replace(seen, ground=held.ground) == held
    assert uniform(3, 5, "scene 0")[0] == draws(3, np.array([5]))[0, 0]


def outlines(scene: Scene) -> list[bool]:
    """Of a complete scene's things: whether something is drawn around each that is neither it nor the background."""
    picture, empty = paint([scene], 128)[0], ground(str(scene.ground), 128) * 2 - 1
    beyond = np.abs(picture - empty).max(-1) > 0.3
    beyond &= silhouette(scene, 128) == 0
    return [
        bool(beyond[top : top + side, left : left + side].any())
        for left, top, side in (box(str(t.size), str(t.place), 128) for t in scene.things)
    ]


def test_scenes_in_which_a_thing_is_outlined_can_be_had_more_often() -> None:
    usual, more = (SceneWorld(seed=5, figures=0.0, shapes=0.5, two=0.5, outlined=share) for share in (0.0, 1.0))
    before, after = (cast(list[Scene], world.contents(range(120))) for world in (usual, more))
    assert [scene.things for scene in before] == [scene.things for scene in after], "other backgrounds, no other things"
    assert not any(scene.held_out for scene in after)
    shown = [outlines(scene) for scene in after]
    told = [[is_outlined(thing, str(scene.ground), 128) for thing in scene.things] for scene in after]
    assert shown == told, "what is said to be outlined is what is drawn so"
    assert sum(map(any, shown)) > 80 > 30 > sum(any(outlines(scene)) for scene in before)


def test_a_share_of_nothing_outlined_leaves_scenes_as_they_were() -> None:
    half = SceneWorld(seed=5, figures=0.0, outlined=0.5).contents(range(200))
    none, all_ = (SceneWorld(seed=5, figures=0.0, outlined=share).contents(range(200)) for share in (0.0, 1.0))
    alike = [a == b for a, b, c in zip(half, none, all_, strict=True) if b != c]
    assert 0.35 < np.mean(alike) < 0.65

"""The judge is right about true renders, lets small softness pass, and notices planted faults."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ldm.world.judge import SHIFT, Seams, completions, edge_width, judge
from ldm.world.paint import box, paint, silhouette
from ldm.world.scene import COLOURS, Scene, Thing
from ldm.world.scenes import SceneWorld
from ldm.world.sentences import asked, wish_for
from tests.world.recolour import recoloured

MANY = 100


@cache
def scenes(two: float = 0.2, n: int = MANY) -> list[Scene]:
    contents = SceneWorld("heldout", length=n, seed=21, figures=0.0, two=two).contents(range(n))
    return [content for content in contents if isinstance(content, Scene)]


def single(n: int = 12) -> list[Scene]:
    return scenes(0.0)[:n]


def wrong(pictures: np.ndarray, wanted: list[Scene], field: str) -> float:
    """The share of pictures whose verdict says that a field is wrong."""
    return float(np.mean([not getattr(judge(p, s), field) for p, s in zip(pictures, wanted, strict=True)]))


@pytest.mark.parametrize("size", [64, 96])
def test_true_renders_are_right(size: int) -> None:
    wanted = scenes() if size == 64 else scenes()[:8]
    verdicts = [judge(picture, scene) for picture, scene in zip(paint(wanted, size), wanted, strict=True)]
    assert sum(v.right for v in verdicts) >= math.ceil(0.99 * len(verdicts))
    assert max(v.ground_error for v in verdicts) < 0.01 and max(v.thing_error for v in verdicts) < 0.01
    assert all(abs(v.edge_width - 1) < 1e-3 and v.overlap == 1 for v in verdicts)


def test_what_a_wish_leaves_open_may_be_anything() -> None:
    for scene in scenes()[:12]:
        wish = asked(wish_for(scene))
        open_wish = replace(wish, ground=None, things=tuple(replace(t, size=None, colour=None) for t in wish.things))
        for asked_for in (wish, open_wish):
            verdict = judge(paint([scene], 64)[0], asked_for)
            assert verdict.right and verdict.true == scene, (scene, verdict)


def test_side_by_side_may_stand_either_way() -> None:
    pair = Scene("green", (Thing("cat", "small", "left"), Thing("car", "small", "right")))
    turned = Scene("green", (Thing("car", "small", "left"), Thing("cat", "small", "right")))
    beside = Scene("green", (Thing("car"), Thing("cat")))
    assert judge(paint([pair], 64)[0], beside).right and judge(paint([turned], 64)[0], beside).right
    assert not judge(paint([turned], 64)[0], pair).right
    assert len(list(completions(beside))) == 2


def test_a_slightly_soft_picture_is_right_and_its_edges_are_wider() -> None:
    wanted = scenes()[:20]
    soft = gaussian_filter(paint(wanted, 64), (0, 0.9, 0.9, 0))
    verdicts = [judge(picture, scene) for picture, scene in zip(soft, wanted, strict=True)]
    assert np.mean([v.right for v in verdicts]) > 0.9
    assert 1.15 < np.mean([v.edge_width for v in verdicts]) < 2.2
    plane = np.tile(np.clip((np.arange(64) - 31.5) * 100, 0, 100), (64, 1))
    widths = [edge_width(gaussian_filter(plane, sigma), gaussian_filter(plane, 1.0)) for sigma in (1.0, 2.0)]
    assert widths[0] == pytest.approx(1) and 1.6 < widths[1] < 2.1


@pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB")  # colours that no screen shows are tried too
def test_a_wrong_colour_is_noticed() -> None:
    assert SHIFT < 8
    wanted = single()
    pictures = paint(wanted, 64)
    inside = [silhouette(scene, 64) > 0.02 for scene in wanted]
    things = np.stack([recoloured(p, m, 8.0) for p, m in zip(pictures, inside, strict=True)])
    grounds = np.stack([recoloured(p, ~m, 8.0) for p, m in zip(pictures, inside, strict=True)])
    small = np.stack([recoloured(p, m, 2.0) for p, m in zip(pictures, inside, strict=True)])
    assert wrong(things, wanted, "colours") >= 0.95 and wrong(grounds, wanted, "colours") >= 0.95
    assert wrong(small, wanted, "colours") == 0


def test_a_wrong_thing_is_noticed() -> None:
    wanted = single(14)
    others = []
    for scene, other in zip(wanted, wanted[1:] + wanted[:1], strict=True):
        mine = scene.things[0]
        others.append(Scene(scene.ground, (replace(other.things[0], size=mine.size, place=mine.place),)))
    pictures = paint(others, 64)
    assert wrong(pictures, wanted, "things") >= 0.99
    pairs = scenes(1.0, 12)
    doubled = [replace(s, things=(replace(s.things[1], place=s.things[0].place), s.things[1])) for s in pairs]
    assert wrong(paint(doubled, 64), pairs, "right") >= 0.99


def test_a_wrong_background_is_noticed() -> None:
    wanted = single(14)
    names = [scene.ground for scene in wanted]
    others = [replace(s, ground=name if name != s.ground else "meadow")
              for s, name in zip(wanted, names[1:] + names[:1], strict=True)]  # fmt: skip
    assert wrong(paint(others, 64), wanted, "ground") >= 0.99


def test_a_shifted_thing_is_noticed() -> None:
    plain = [scene for scene in single(60) if scene.ground in COLOURS]
    wanted = [scene for scene in plain if scene.things[0].size == "small"][:12]
    moved = []
    for scene in wanted:  # one cell towards the middle, or to the right of it
        left, top, side = box("small", str(scene.things[0].place), 64)
        step = 8 if left <= 16 else -8
        moved.append(np.roll(paint([scene], 64)[0], step, axis=1))
        assert 0 <= left + step <= 64 - side and top >= 0
    assert len(wanted) >= 6 and wrong(np.stack(moved), wanted, "place") >= 0.99
    elsewhere = [replace(s, things=(replace(s.things[0], place="top" if s.things[0].place != "top" else "left"),))
                 for s in wanted]  # fmt: skip
    assert wrong(paint(elsewhere, 64), wanted, "place") >= 0.99


def test_a_grid_is_noticed() -> None:
    pictures = paint(scenes()[:40], 64)
    generator = np.random.default_rng(0)
    cells = generator.normal(0, 0.03, (len(pictures), 8, 8, 1)).repeat(8, 1).repeat(8, 2).astype(np.float32)
    true, gridded, noisy = Seams(), Seams(), Seams()
    for picture, cell in zip(pictures, cells, strict=True):
        true.add(picture)
        gridded.add(picture + cell)
        noisy.add(picture + generator.normal(0, 0.03, picture.shape).astype(np.float32))
    assert gridded.ratio > true.ratio + 0.15
    assert abs(noisy.ratio - 1) < abs(true.ratio - 1) + 0.05
    flat = Seams()
    flat.add(pictures[0] * 0)
    assert math.isnan(flat.ratio)
    part = Seams()
    mask = np.zeros((64, 64), bool)
    mask[:, :24] = True
    part.add(pictures[0] + cells[0], mask)
    assert part.border_count + part.inner_count == 64 * 23 + 63 * 24

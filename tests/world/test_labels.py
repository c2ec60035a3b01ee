"""Scenes as labels, and whether what is seen is what was asked for."""

from __future__ import annotations

import pytest

from ldm.world.labels import ASTRAY, NOTHING, OWN, classes, compare, labels_of
from ldm.world.scene import Scene, Thing
from ldm.world.scenes import SceneWorld

CAT = Thing("cat", "small", "left")
RING = Thing("ring", "small", "right", "red", "striped")
PAIR = Scene("beach", (CAT, RING))


def test_every_scene_has_labels_of_the_classes() -> None:
    world = SceneWorld("all", 32, length=500, figures=0.0, two=0.5)
    known = classes()
    for scene in world.contents(range(500)):
        assert isinstance(scene, Scene)
        found = labels_of(scene)
        assert found.keys() == known.keys() and all(value in known[name] for name, value in found.items())
        assert all(compare(scene, found).values())


def test_a_pair_and_a_single_thing() -> None:
    assert labels_of(PAIR) == {
        "background": "beach", "layout": "left of", "first": "cat", "first colour": OWN, "first texture": OWN,
        "second": "ring", "second colour": "red", "second texture": "striped",
    }  # fmt: skip
    alone = labels_of(Scene("blue", (CAT,)))
    assert alone["layout"] == "small left" and alone["second"] == NOTHING


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"background": "sea"}, {"background"}), ({"first": "dog"}, {"thing"}), ({"second": NOTHING}, {"thing"}),
        ({"second colour": "blue"}, {"colour"}), ({"second texture": "dotted"}, {"texture"}),
        ({"layout": "above"}, {"place"}), ({"layout": ASTRAY}, {"place"}),
    ],
)  # fmt: skip
def test_one_thing_wrong_is_one_attribute_wrong(change: dict[str, str], wrong: set[str]) -> None:
    right = compare(PAIR, labels_of(PAIR) | change)
    assert {name for name, good in right.items() if not good} == wrong


def test_what_is_left_open_is_not_judged() -> None:
    beside = Scene(None, (Thing("ring"), Thing("cat")))  # in either order
    assert all(compare(beside, labels_of(PAIR) | {"second texture": "plain"}).values())
    assert compare(beside, labels_of(PAIR)) == {"thing": True, "texture": False, "place": True}
    one = Scene("blue", (Thing("cat"),))
    seen = labels_of(Scene("blue", (Thing("cat", "large", "middle"),)))
    assert compare(one, seen) == {"background": True, "thing": True, "place": True}
    assert not compare(one, seen | {"second": "ring"})["thing"]

"""What is around a word that is learned: scenes in which it stands for a thing, and masks of all but that thing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ldm.util import UserError
from ldm.world.around import Around
from ldm.world.grounds import ground
from ldm.world.scene import GROUNDS, SHAPES

NAMES = ("robot", *SHAPES)  # "robot" is what the word takes the name of


def test_beside_the_word_there_is_a_background_and_nothing_else() -> None:
    """Outside of the mask's square a picture of one thing is one of the world's backgrounds, dot for dot."""
    world = Around(size=64, length=60, seed=3, two=0.0)
    grounds = [ground(name, 64) * 2 - 1 for name in GROUNDS]
    squares, sentences = set(), set()
    for item in (world[i] for i in range(60)):
        outside = item["loss_mask"] == 1
        least = min(np.abs(item["image"] - one)[outside].max() for one in grounds)
        assert least < 1e-6
        inside = ~outside
        rows, columns = inside.any(1).sum(), inside.any(0).sum()
        assert rows == columns and inside.sum() == rows * columns, "one square"
        assert min(np.abs(item["image"] - one)[inside].max() for one in grounds) > 0.1, "in which a thing stands"
        assert item["caption"].count("*") == 1 and not said(item, NAMES)
        squares.add(inside.tobytes())
        sentences.add(item["caption"])
    assert len(squares) > 5 and len(sentences) > 50


def test_a_second_thing_is_learned() -> None:
    world = Around("<mill>", size=64, length=40, two=1.0)
    grounds = [ground(name, 64) * 2 - 1 for name in GROUNDS]
    for item in (world[i] for i in range(40)):
        outside = item["loss_mask"] == 1
        assert min(np.abs(item["image"] - one)[outside].max() for one in grounds) > 0.1
        assert item["caption"].lower().count("<mill>") == 1


def test_the_mask_leaves_out_the_thing_that_the_word_stands_for() -> None:
    sides = {"* to the left of": 0, "to the left of a *": 1, "* to the right of": 1, "to the right of a *": 0}
    seen = set()
    world = Around(size=64, length=300, two=1.0)
    for item in (world[i] for i in range(300)):
        columns = np.flatnonzero((item["loss_mask"] == 0).any(0))
        for words, side in sides.items():
            if words in item["caption"].lower():
                assert (columns >= 32).all() if side else (columns < 32).all(), item["caption"]
                seen.add(words)
    assert len(seen) > 2


def test_each_sentence_has_one_of_several_words() -> None:
    world = Around(["a1", "b2"], size=64, length=20)
    counts = [[world[i]["caption"].lower().count(word) for word in ("a1", "b2")] for i in range(20)]
    assert sorted(set(map(tuple, counts))) == [(0, 1), (1, 0)]


def test_an_item_is_a_function_of_seed_and_number() -> None:
    first, again, other = Around(length=50, seed=1), Around(length=50, seed=1), Around(length=50, seed=2)
    again[7]
    assert same(first[9], again[9]) and not same(first[9], other[9]) and not same(first[9], first[10])
    assert same(first[-1], first[49])
    with pytest.raises(IndexError):
        first[50]


@pytest.mark.parametrize("wrong", [{"two": 1.1}, {"shapes": -0.1}, {"length": 0}, {"size": 100}])
def test_what_means_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        Around(**wrong)


def said(item: dict[str, Any], names: tuple[str, ...]) -> bool:
    words = item["caption"].lower().replace("*", " ").split()
    return any(name in words for name in names)


def same(one: dict[str, Any], two: dict[str, Any]) -> bool:
    arrays = all(np.array_equal(one[key], two[key]) for key in ("image", "loss_mask"))
    return arrays and one["caption"] == two["caption"]

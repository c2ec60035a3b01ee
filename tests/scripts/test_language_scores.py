"""Scores of one model in several languages: the same combinations, the table, and a learned word's sentences."""

from __future__ import annotations

import pytest

from ldm.util import UserError
from ldm.world.attributes import Attributes
from ldm.world.scoring import compare
from scripts.language_scores import about_word, held_out, table


def test_every_language_is_asked_for_the_same_combinations() -> None:
    english, korean, chinese = (held_out(60, name) for name in ("en", "ko", "zh"))
    assert [wish for _, wish in english] == [wish for _, wish in korean] == [wish for _, wish in chinese]
    assert len({text for text, _ in [*english, *korean, *chinese]}) > 150


def test_sentences_about_a_learned_word() -> None:
    english, korean, chinese = (about_word(20, name, "*", "green striped triangle") for name in ("en", "ko", "zh"))
    assert english[0][0] == "a small * on a red background"
    assert korean[0][0] == "빨간색 배경 위의 작은 *"
    assert chinese[0][0] == "红色背景上的一个小的*"
    assert english[9][0] == "a picture of a small * on a red background"
    wishes = [wish for _, wish in english]
    assert wishes == [wish for _, wish in korean] == [wish for _, wish in chinese]
    assert wishes[0] == Attributes("triangle", "green", "red", "small", "striped")
    assert "green" not in {wish.background for wish in wishes}
    with pytest.raises(UserError, match="not a caption"):
        about_word(1, "en", "*", "green elephant")


def test_the_table_says_how_far_a_language_is_behind() -> None:
    asked = [Attributes("star", "red", "blue", "small"), Attributes("moon", "red", "blue")]
    right = [{"shape": (w.shape, 1.0), "colour": ("red", 1.0), "background": ("blue", 1.0),
              "size": ("small", 1.0), "texture": ("plain", 1.0)} for w in asked]  # fmt: skip
    wrong = [right[0], {**right[1], "shape": ("star", 0.9)}]
    lines = table({"en": compare(asked, right), "ko": compare(asked, wrong)}).splitlines()
    assert lines[0].split() == ["attribute", "en", "ko", "en-ko"]
    assert lines[1].split() == ["shape", "100.0%", "50.0%", "50.0"]
    assert lines[2].split() == ["colour", "100.0%", "100.0%", "0.0"]
    assert lines[-1].split() == ["all", "100.0%", "50.0%", "50.0"]

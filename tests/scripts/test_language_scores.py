"""Scores of one model in several languages: the same scenes, the table, and a learned word's sentences."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ldm.util import UserError
from ldm.world.paint import paint
from ldm.world.scene import Scene, Thing
from scripts.judge import report
from scripts.language_scores import about_word, held_out, table


def test_every_language_is_asked_for_the_same_scenes() -> None:
    english, korean, chinese = (held_out(60, name) for name in ("en", "ko", "zh"))
    assert english[1] == korean[1] == chinese[1]
    assert len({*english[0], *korean[0], *chinese[0]}) > 150
    assert held_out(60, "en", free=True)[0] != english[0]


def test_sentences_about_a_learned_word() -> None:
    english, korean, chinese = (about_word(20, name, "*", "green striped triangle") for name in ("en", "ko", "zh"))
    assert english[0][0] == "a small * on a red background"
    assert korean[0][0] == "빨간 배경 위의 작은 *"
    assert chinese[0][0] == "红色背景上的小*"
    assert english[1] == korean[1] == chinese[1]
    assert english[1][0] == Scene("red", (Thing("triangle", "small", "middle", "green", "striped"),))
    assert not [scene for scene in english[1] if "green" in str(scene.ground)]
    with pytest.raises(UserError, match="no shape and colour"):
        about_word(1, "en", "*", "green elephant")


def test_the_table_says_how_far_a_language_is_behind() -> None:
    scenes = [
        Scene("blue", (Thing("star", "small", "middle", "red", "plain"),)),
        Scene("red", (Thing("cat", "large", "middle"),)),
    ]
    right = list(paint(scenes))
    wrong = list(paint([scenes[0], replace(scenes[1], ground="green")]))
    lines = table({"en": report(right, scenes)[1], "ko": report(wrong, scenes)[1]}).splitlines()
    assert lines[0].split() == ["as", "asked", "en", "ko", "en-ko"]
    assert lines[1].split() == ["ground", "100.0%", "50.0%", "50.0"]
    assert lines[-1].split() == ["right", "100.0%", "50.0%", "50.0"]

"""Which language a sentence is in, and what garbled text looks like."""

from __future__ import annotations

import pytest

from ldm.languages import check_language, detect_language, simplified, what_is_wrong
from ldm.util import UserError


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("a red star", "en"),
        ("", "en"),
        ("* 12 !?", "en"),
        ("un café à Malmö", "en"),
        ("파란 배경 위의 빨간 별", "ko"),
        ("ㅋㅋ", "ko"),
        ("blue 배경 위의 red star", "ko"),
        ("蓝色背景上有一颗红色星星", "zh"),
        ("a 红色 star", "zh"),
        ("a * 위", "ko"),
        ("красная звезда", "other"),
        ("赤い星", "zh"),
        ("あか", "other"),
        ("a π", "other"),
    ],
)
def test_detection(text: str, language: str) -> None:
    assert detect_language(text) == language


def test_traditional_characters_become_simplified_ones_and_other_text_stays() -> None:
    assert simplified("藍色背景上的紅色星星, two stars") == "蓝色背景上的红色星星, two stars"
    for text in ("蓝色背景上的红色星星", "파란 배경 위의 빨간 별 國", "a red star", ""):
        assert simplified(text) == text


def test_an_unknown_language_is_named() -> None:
    assert check_language("auto", "auto") == "auto"
    with pytest.raises(UserError, match="unknown language 'fr'; known: en, ko, zh, auto"):
        check_language("fr", "auto")


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "gbk", "cp949"])
@pytest.mark.parametrize(("text", "language"), [("파란 배경", "ko"), ("红色星星", "zh")])
def test_utf8_read_as_something_else_is_noticed(text: str, language: str, encoding: str) -> None:
    garbled = text.encode().decode(encoding, errors="replace")
    assert garbled != text
    assert what_is_wrong(garbled, language) is not None
    assert what_is_wrong(text, language) is None


def test_characters_that_are_utf8_of_another_script_by_chance_are_fine() -> None:
    assert "一頂禮帽".encode("gbk").decode("utf-8") == "һ픶Yñ"
    assert what_is_wrong("一頂禮帽", "zh") is None


def test_other_ways_to_be_wrong() -> None:
    assert "Hangul" in (what_is_wrong("a red star", "ko") or "")
    assert "Chinese" in (what_is_wrong("파란 배경", "zh") or "")
    assert "not English" in (what_is_wrong("파란 배경", "en") or "")
    assert what_is_wrong("*", "ko") is None
    assert what_is_wrong("un café", "en") is None
    assert what_is_wrong("red 배경", "mixed") is None

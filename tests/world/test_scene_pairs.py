"""Pairs of sentences about scenes: the English side says the same, plainly, with the same slots."""

from __future__ import annotations

import csv
import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ldm.data.sentence_pairs import SentencePairs
from ldm.languages import what_is_wrong
from ldm.world.objects import objects
from ldm.world.scene import SHAPES
from ldm.world.scene_pairs import PHOTOGRAPHS, SHARES, SLOTS, SLOTTED, SYLLABLES, Pair, scene_pairs, with_stray_word
from scripts.world_pairs import write_pairs

PAIRS = list(scene_pairs(1500, seed=2))


def test_pairs_repeat_and_keep_their_shares() -> None:
    assert list(scene_pairs(300, seed=2)) == PAIRS[:300] and PAIRS[:50] != list(scene_pairs(50, seed=3))
    counts = Counter(pair.language for pair in PAIRS)
    assert all(abs(counts[language] / 1500 - share) < 0.04 for language, share in SHARES.items())
    slotted = sum(any(slot in pair.source for slot in SLOTS) for pair in PAIRS) / 1500
    assert abs(slotted - (1 - PHOTOGRAPHS) * SLOTTED - 0.3 * PHOTOGRAPHS) < 0.04


def test_every_sentence_is_in_its_language() -> None:
    assert all(what_is_wrong(pair.source, pair.language) is None for pair in PAIRS)
    ends = [pair for pair in scene_pairs(256, seed=2) if pair.source.startswith("@")]
    assert all(len(pair.source) > 1 for pair in ends)  # a slot alone is in no language


def test_slots_are_in_both_sentences() -> None:
    for pair in PAIRS:
        assert all((slot in pair.source) == (slot in pair.english) for slot in SLOTS), pair


def test_what_one_names_the_other_names() -> None:
    names = objects()
    checked = 0
    for pair in PAIRS:
        if pair.language != "ko" or "사진" in pair.source:
            continue
        for name in ("turtle", "flamingo", "cactus", "backpack", "helicopter", "penguin", "octopus"):
            said = any(form in pair.source for form in (*names[name].forms["ko"], name))
            assert said == (names[name].forms["en"][0] in pair.english), pair
            checked += said
    assert checked > 15


def test_english_is_plain() -> None:
    plain = [pair.english for pair in PAIRS if "photo" not in pair.english]
    assert all(text == text.lower() or "T恤" in text for text in plain)
    assert sum(" on " in text or " in " in text or " at " in text for text in plain) > 0.8 * len(plain)


def test_the_file_is_one_that_an_aligner_reads(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    write_pairs(path, 60)
    with path.open(encoding="utf-8", newline="") as file:
        assert next(csv.reader(file)) == ["lang", "source", "en"]
    assert len(SentencePairs(str(path))) == 60


def test_a_few_have_a_word_without_meaning_between_their_own() -> None:
    rng = random.Random(0)
    for _ in range(50):
        words = with_stray_word("파란 배경 위의 별", "ko", rng).split(" ")
        (stray,) = [word for word in words if word not in ("파란", "배경", "위의", "별")]
        assert len(words) == 5 and 2 <= len(stray) <= 3 and set(stray) <= set(SYLLABLES["ko"])
        assert with_stray_word("蓝色的星星", "zh", rng).replace("蓝色的星星", "", 1) != ""


def test_shares_of_shapes_and_of_two_things() -> None:
    def with_two_shapes(pairs: Iterable[Pair]) -> float:
        return sum(sum(pair.english.count(shape) for shape in SHAPES) == 2 for pair in pairs) / 300

    assert with_two_shapes(scene_pairs(300, seed=4)) < 0.03
    assert with_two_shapes(scene_pairs(300, seed=4, shapes=1.0, two=1.0)) > 0.6  # the rest has slots, or is a photo

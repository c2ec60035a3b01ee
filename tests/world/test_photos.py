"""The bundled photographs, the draws that data sets are made of, and the word list."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from transformers import BertTokenizer

from ldm.draws import choose, uniform
from ldm.util import UserError
from ldm.world.photos import BundledPhotos, load_photo, photos
from ldm.world.vocabulary import english_vocabulary, write_vocabulary


def test_draws_are_even_independent_and_random_access() -> None:
    numbers = np.arange(20_000)
    a, b, c = uniform(0, numbers, "a"), uniform(0, numbers, "b"), uniform(1, numbers, "a")
    for sample in (a, b, c):
        assert sample.min() >= 0 and sample.max() < 1
        counts = np.histogram(sample, 20, (0, 1))[0]
        assert abs(counts - 1000).max() < 150
    assert all(abs(np.corrcoef(x, y)[0, 1]) < 0.03 for x, y in ((a, b), (a, c), (a[1:], a[:-1])))
    assert np.array_equal(uniform(0, [7, 19_999], "a"), a[[7, 19_999]])
    assert set(choose(3, numbers, "c", 5)) == set(range(5))


def test_photographs_are_there_and_held_out_scenes_stay_out() -> None:
    assert {p.name for p in photos("heldout")} == {"chelsea", "rocket", "camera", "coins"}
    assert not {p.name for p in photos("train")} & {p.name for p in photos("heldout")}
    for photo in photos():
        image = load_photo(photo)
        assert image.mode == "RGB" and min(image.size) >= 190


def test_photograph_crops() -> None:
    data = BundledPhotos(size=32, length=40, language="mixed")
    again = BundledPhotos(size=32, length=40, language="mixed")
    for i in range(40):
        item = data[i]
        assert item["image"].shape == (32, 32, 3) and item["image"].dtype == np.float32
        assert item["caption"] == again[i]["caption"] and np.array_equal(item["image"], again[i]["image"])
    names = {p.subjects["en"] for p in photos("heldout")}
    captions = [BundledPhotos("train", 8, 300)[i]["caption"] for i in range(300)]
    assert not any(text.endswith(name) for text in captions for name in names)
    with pytest.raises(UserError, match="smallest <= largest"):
        BundledPhotos(scales=(0.9, 0.1))


def test_recoloured_crops_keep_their_content() -> None:
    plain, coloured = BundledPhotos(size=32, length=30), BundledPhotos(size=32, length=30, recolour=1.0)
    for i in range(30):
        one, other = plain[i]["image"].mean(-1), coloured[i]["image"].mean(-1)
        assert abs(coloured[i]["image"]).max() <= 1 and not np.array_equal(plain[i]["image"], coloured[i]["image"])
        assert one.std() < 0.02 or np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.9


def test_the_vocabulary_knows_every_caption_and_spells_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    write_vocabulary(path)
    tokens = english_vocabulary()
    assert tokens[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] and len(tokens) == len(set(tokens)) < 700
    tokenizer = BertTokenizer(str(path))
    for item in (BundledPhotos("all", 8, length=100)[i] for i in range(100)):
        pieces = tokenizer.tokenize(item["caption"])
        assert "[UNK]" not in pieces and not any(piece.startswith("##") for piece in pieces)
    assert tokenizer.tokenize("a photo of a * , @") == ["a", "photo", "of", "a", "*", ",", "@"]
    assert "[UNK]" not in tokenizer.tokenize("A quixotic zebra-striped 42nd!")
    assert tokenizer.tokenize("zebra") != tokenizer.tokenize("quagga")

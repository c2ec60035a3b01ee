"""The data sets of the rendered world and of the bundled photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import BertTokenizer

from ldm.draws import choose, uniform
from ldm.util import UserError
from ldm.world.attributes import combinations
from ldm.world.captions import parse
from ldm.world.photos import PHOTOS, BundledPhotos, load_photo, photos
from ldm.world.render import render
from ldm.world.shapes import ShapesWorld
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


def test_an_item_depends_on_seed_and_index_only() -> None:
    options: dict[str, Any] = {
        "language": "mixed", "photos_share": 0.2, "jitter": 0.1, "caption_dropout": 0.2, "length": 500,
    }  # fmt: skip
    first, second, other = ShapesWorld(**options), ShapesWorld(**options), ShapesWorld(**options, seed=1)
    batch = first.__getitems__(range(100, 140))
    for i, item in zip(range(100, 140), batch, strict=True):
        single = second[i]
        assert single["caption"] == item["caption"]
        np.testing.assert_allclose(single["image"], item["image"], atol=1e-6)
    assert any(other[i]["caption"] != item["caption"] for i, item in zip(range(100, 140), batch, strict=True))
    with pytest.raises(IndexError):
        first[500]


def test_picture_and_caption_agree() -> None:
    for language in ("en", "ko", "zh"):
        world = ShapesWorld(language=language, open_size=0.3, length=300)
        for i, item in enumerate(world.__getitems__(range(300))):
            said, drawn = parse(item["caption"], language), world.attributes(i)
            assert said.agrees(drawn)
            np.testing.assert_allclose(item["image"], render([drawn])[0], atol=1e-6)


def test_training_never_sees_what_is_held_out() -> None:
    held = {(a.shape, a.colour, a.background) for a in combinations("heldout")}
    n = len(combinations("train"))
    world = ShapesWorld("train", size=16, length=2 * n)
    drawn = [world.attributes(i) for i in range(2 * n)]
    assert not held & {(a.shape, a.colour, a.background) for a in drawn}
    assert set(drawn[:n]) == set(drawn[n:]) == set(combinations("train")) and drawn[:n] != drawn[n:]
    said = [parse(item["caption"]) for item in world.__getitems__(range(500))]
    assert not held & {(a.shape, a.colour, a.background) for a in said}
    kept = ShapesWorld("heldout", size=16, length=432)
    assert {kept.attributes(i) for i in range(432)} == set(combinations("heldout"))


def test_shares_are_kept() -> None:
    world = ShapesWorld(size=16, length=4000, open_size=0.3, caption_dropout=0.1, photos_share=0.05)
    texts = [item["caption"] for item in world.__getitems__(range(4000))]
    empty = sum(text == "" for text in texts) / 4000
    photographs = sum("photo" in t or any(p.subjects["en"] in t for p in PHOTOS) for t in texts) / 4000
    sized = sum(any(w in t for w in ("small", "large", "little", "big")) for t in texts) / 4000
    assert abs(empty - 0.1) < 0.02 and abs(photographs - 0.045) < 0.015 and abs(sized - 0.9 * 0.95 * 0.7) < 0.03


def test_jitter_moves_the_object_and_stays_in_bounds() -> None:
    world = ShapesWorld(jitter=0.06, length=200)
    offsets = world._offsets(np.arange(200))
    assert offsets is not None and abs(offsets).max() <= 0.06 and offsets.std() > 0.02
    assert not np.allclose(world[0]["image"], render([world.attributes(0)])[0])


def test_a_loader_collates() -> None:
    loader = DataLoader(ShapesWorld(length=8, photos_share=0.5), batch_size=4)
    batch = next(iter(loader))
    assert batch["image"].shape == (4, 64, 64, 3) and batch["image"].dtype == torch.float32
    assert len(batch["caption"]) == 4 and batch["image"].abs().max() <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "test"}, "no split 'test'"),
        ({"language": "fr"}, "no language 'fr'"),
        ({"photos_share": 2.0}, "photos_share is a share between 0 and 1"),
        ({"jitter": 0.9}, "jitter"),
    ],
)
def test_wrong_settings_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ShapesWorld(**options)  # type: ignore[arg-type]


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
    assert tokens[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] and len(tokens) == len(set(tokens)) < 600
    tokenizer = BertTokenizer(str(path))
    for split in ("train", "heldout"):
        for item in ShapesWorld(split, size=8, length=1500, photos_share=0.2).__getitems__(range(1500)):
            pieces = tokenizer.tokenize(item["caption"])
            assert "[UNK]" not in pieces and not any(piece.startswith("##") for piece in pieces)
    assert tokenizer.tokenize("a photo of a * , @") == ["a", "photo", "of", "a", "*", ",", "@"]
    assert "[UNK]" not in tokenizer.tokenize("A quixotic zebra-striped 42nd!")
    assert tokenizer.tokenize("zebra") != tokenizer.tokenize("quagga")

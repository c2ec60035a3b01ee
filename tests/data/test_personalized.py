"""Pictures of something new and their sentences."""

from __future__ import annotations

import logging
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ldm.data import personalized_style
from ldm.data.buckets import bucket_sizes, nearest_bucket
from ldm.data.personalized import PersonalizedBase, has_word
from ldm.data.templates import KINDS
from ldm.util import UserError


def save(folder: Path, name: str, width: int = 24, height: int = 16, left: int = 40, **options: Any) -> Path:
    """A picture whose left half is darker than its right one."""
    folder.mkdir(exist_ok=True)
    values = np.full((height, width, 3), 220, np.uint8)
    values[:, : width // 2] = left
    Image.fromarray(values).save(folder / name, **options)
    return folder / name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, name in enumerate(("a.png", "b.jpg", "c.webp", "d.bmp", "e.tif")):
        save(tmp_path / "pictures", name, left=20 * i)
    return tmp_path / "pictures"


def is_mirrored(image: np.ndarray) -> bool:
    return bool(image[:, 0].mean() > image[:, -1].mean())


def test_items_and_lengths(folder: Path) -> None:
    train = PersonalizedBase(str(folder), size=8, repeats=100)
    assert len(train) == 500 and len(PersonalizedBase(str(folder), size=8, repeats=100, set="val")) == 5
    item = train[7]
    assert item["image"].shape == (8, 8, 3) and item["image"].dtype == np.float32 and abs(item["image"]).max() <= 1
    assert has_word(item["caption"], "*")
    assert PersonalizedBase(str(folder))[0]["image"].shape == (16, 24, 3), "without a size, as they are"


def test_the_picture_of_an_item_is_always_the_same_and_half_are_mirrored(folder: Path) -> None:
    data = PersonalizedBase(str(folder), size=8, repeats=100, flip_p=0.5)
    random.seed(0)
    first = [data[i] for i in range(0, 500, 5)]
    again = [data[i] for i in range(0, 500, 5)]
    assert all(np.array_equal(a["image"], b["image"]) for a, b in zip(first, again, strict=True))
    assert [a["caption"] for a in first] != [b["caption"] for b in again]
    assert 35 <= sum(is_mirrored(item["image"]) for item in first) <= 65
    assert len({item["image"].tobytes() for item in first}) == 2
    assert not any(is_mirrored(PersonalizedBase(str(folder), size=8, flip_p=0)[i]["image"]) for i in range(40))


def test_whole_middle_and_random_parts(folder: Path) -> None:
    whole, middle = (PersonalizedBase(str(folder), size=16, flip_p=0, center_crop=wish) for wish in (False, True))
    assert whole[0]["image"][:, :7].std() < middle[0]["image"][:, :7].std() + 1e-3
    assert np.array_equal(middle[0]["image"], middle[5]["image"])
    parts = PersonalizedBase(str(folder), size=8, flip_p=0, crops=3, scales=(0.6, 0.9))
    assert len({parts[i]["image"].tobytes() for i in range(0, 100, 5)}) == 3
    assert np.array_equal(parts[0]["image"], parts[15]["image"])


def test_exif_and_other_modes(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down: left and right are exchanged as well
    save(tmp_path / "p", "a.jpg", exif=exif)
    Image.new("LA", (8, 8), (0, 0)).save(tmp_path / "p" / "b.png")
    data = PersonalizedBase(str(tmp_path / "p"), size=8, flip_p=0)
    assert is_mirrored(data[0]["image"])
    assert (data[1]["image"] == 1).all(), "what is transparent is white"


def test_masks_beside_pictures_are_cut_and_mirrored_with_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A picture that is its own mask is the same after whatever happens to both."""
    save(tmp_path / "p", "a.png", left=0)
    save(tmp_path / "p", "b.png", left=90)
    Image.open(tmp_path / "p" / "a.png").convert("L").save(tmp_path / "p" / "a_mask.png")
    caplog.set_level(logging.INFO)
    shaped: tuple[dict[str, Any], ...] = (
        {"size": 16}, {"size": 16, "center_crop": True}, {"size": 8, "crops": 3, "scales": (0.6, 0.9)},
        {"size": 16, "bucket_step": 8}, {},
    )  # fmt: skip
    for options in shaped:
        data = PersonalizedBase(str(tmp_path / "p"), **options)
        assert len(data.examples) == 2, "a mask is not learned as a picture"
        items = [data[i] for i in range(40)]
        for masked, whole in zip(items[::2], items[1::2], strict=True):
            assert abs(masked["loss_mask"] - (masked["image"][..., 0] + 1) / 2).max() < 0.01
            assert (whole["loss_mask"] == 1).all() and whole["loss_mask"].shape == whole["image"].shape[:2]
        assert len({is_mirrored(item["image"]) for item in items}) == 2
    assert "1 of 2 pictures have a mask beside them" in caplog.text
    assert "loss_mask" not in PersonalizedBase(str(tmp_path / "p"), size=8, masks=False)[0]
    (tmp_path / "p" / "a_mask1.png").write_bytes((tmp_path / "p" / "a_mask.png").read_bytes())
    with pytest.raises(UserError, match="has 2 masks"):
        PersonalizedBase(str(tmp_path / "p"), size=8)


def test_object_and_style_sentences(folder: Path) -> None:
    for kind, data in (
        ("object", PersonalizedBase(str(folder), size=8)),
        ("style", personalized_style.PersonalizedBase(str(folder), size=8)),
    ):
        said = {data[i]["caption"] for i in range(400)}
        assert said == {sentence.format("*") for sentence in KINDS[kind][0]}
    assert set(KINDS["object"][0]).isdisjoint(KINDS["style"][0])


def test_class_word_and_own_sentences(folder: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"coarse_class_text": "dog", "templates": ["see {} run"], "placeholder_token": "@"}
    data = PersonalizedBase(str(folder), size=8, **options)
    assert data[3]["caption"] == "see dog @ run"
    (tmp_path / "own.txt").write_text("one {}\n\ntwo {}\n")
    data = PersonalizedBase(str(folder), size=8, templates=str(tmp_path / "own.txt"))
    assert {data[i]["caption"] for i in range(50)} == {"one *", "two *"}


def test_words_for_single_pictures(folder: Path) -> None:
    data = PersonalizedBase(str(folder), size=8, per_image_tokens=True, mixing_prob=1.0, templates=["a {}"])
    assert [data[i]["caption"] for i in range(6)] == [f"a * with {letter}" for letter in "אבגדהא"]
    data = PersonalizedBase(str(folder), size=8, per_image_tokens=["u", "v", "w", "x", "y"], mixing_prob=0.25)
    share = sum(data[i]["caption"][-7:-1] == " with " for i in range(400)) / 400
    assert 0.15 < share < 0.4
    with pytest.raises(UserError, match="2 words, but there are 5 pictures"):
        PersonalizedBase(str(folder), size=8, per_image_tokens=["u", "v"])


def test_sentences_beside_pictures_and_several_placeholders(folder: Path, tmp_path: Path) -> None:
    save(tmp_path / "more", "x.png")
    data = PersonalizedBase({"*": str(folder), "@": str(tmp_path / "more")}, size=8, templates=["a {}"])
    assert data.placeholders == ("*", "@") and len(data) == 600
    assert [data[i]["caption"] for i in range(6)] == ["a *"] * 5 + ["a @"]
    (tmp_path / "more" / "x.txt").write_text("a red  @, on grass\n\non grass there is a @\n")
    own = {"a red @, on grass", "on grass there is a @"}
    data = PersonalizedBase(str(tmp_path / "more"), size=8, placeholder_token="@", captions=True)
    assert {data[i]["caption"] for i in range(40)} == own
    data = PersonalizedBase(
        {"*": str(folder), "@": str(tmp_path / "more")}, size=8, templates=["a {}"], captions="auto", repeats=20
    )
    assert {data[i]["caption"] for i in range(0, 120, 6)} == {"a *"}
    assert {data[i]["caption"] for i in range(5, 120, 6)} == own
    (tmp_path / "more" / "x.txt").write_text("a @\na cat@home")
    with pytest.raises(UserError, match=r"x\.txt' lacks the placeholder '@'"):
        PersonalizedBase(str(tmp_path / "more"), size=8, placeholder_token="@", captions=True)


def test_a_corrupt_picture_among_good_ones(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "bad.png").write_bytes(b"not a picture")
    whole = (folder / "b.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with caplog.at_level(logging.WARNING):
        data = PersonalizedBase(str(folder), size=8, repeats=1)
    assert len(data) == 5
    assert "bad.png" in caplog.text and "cut.jpg" in caplog.text and "skipped 2 of 7" in caplog.text


def test_a_folder_that_goes_away_is_one_sentence(folder: Path) -> None:
    data = PersonalizedBase(str(folder), size=8, repeats=1)
    shutil.rmtree(folder)
    with pytest.raises(UserError, match=r"a\.png") as caught:
        data[0]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data_root": ""}, "give their folder with --data_root"),
        ({"data_root": "nowhere"}, "no folder 'nowhere'"),
        ({"interpolation": "cubic"}, "there is no interpolation 'cubic'"),
        ({"flip_p": 1.5}, "flip_p"),
        ({"templates": []}, "empty"),
        ({"templates": ["a photo of it"]}, r"'a photo of it' must have the placeholder's place \{\} once"),
        ({"templates": "missing.txt"}, "cannot read the template file 'missing.txt'"),
        ({"captions": True}, r"'a\.png' needs a sentence in"),
        ({"captions": "yes"}, "captions is true, false or 'auto', not 'yes'"),
        ({"crops": 2, "scales": [0.9, 0.2]}, "scale"),
    ],
)
def test_bad_settings(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        PersonalizedBase(**{"data_root": str(folder), "size": 8, **options})


def test_empty_folder_and_nothing_but_corrupt_pictures(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no pictures"):
        PersonalizedBase(str(tmp_path / "empty"))
    (tmp_path / "empty" / "bad.png").write_bytes(b"not a picture")
    with pytest.raises(UserError, match="none of the 1 pictures"):
        PersonalizedBase(str(tmp_path / "empty"))


def test_buckets_have_one_area_and_the_aspects_of_the_paper() -> None:
    sizes = bucket_sizes(1024, 64)
    assert sizes[0] == (512, 2048) and sizes[-1] == (2048, 512)
    assert {(1024, 1024), (832, 1216), (704, 1472)} <= set(sizes)
    assert all(h % 64 == w % 64 == 0 and 0.87 * 1024**2 < h * w <= 1024**2 for h, w in sizes)
    assert sizes[nearest_bucket((2000, 3000), sizes)] == (832, 1216)


def test_a_bucket_holds_the_middle_of_a_picture(tmp_path: Path) -> None:
    (tmp_path / "wide").mkdir()
    values = np.zeros((20, 100, 3), np.uint8)
    values[:, 45:55] = 255  # a white stripe in the middle
    Image.fromarray(values).save(tmp_path / "wide" / "a.png")
    data = PersonalizedBase(str(tmp_path / "wide"), size=32, bucket_step=8, flip_p=0, interpolation="nearest")
    item = data[0]["image"]
    assert item.shape == (16, 64, 3)
    bright = np.flatnonzero(item[8, :, 0] > 0)
    assert bright.mean() == pytest.approx(31.5, abs=1) and len(bright) == pytest.approx(8, abs=1)
    with pytest.raises(UserError, match="bucket_step is a number of pixels up to 'size'"):
        PersonalizedBase(str(tmp_path / "wide"), size=32, bucket_step=64)

"""Folders of pictures, with captions and without."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm.data.captioned import CaptionedFolder
from ldm.data.folder import ImageFolder
from ldm.pictures.crops import random_crop, whole_crop
from ldm.util import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(4):
        pixels = rng.integers(0, 256, (40, 30 + 20 * number, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text(f"picture {number}\n")
    return tmp_path


def test_captions_beside_the_pictures(folder: Path) -> None:
    data = CaptionedFolder(str(folder), size=16)
    assert [data[i]["caption"] for i in range(4)] == [f"picture {i}" for i in range(4)]
    assert data[0]["image"].shape == (16, 16, 3) and data[0]["image"].dtype == np.float32
    assert abs(data[0]["image"]).max() <= 1


def test_captions_from_a_listing(folder: Path) -> None:
    lines = [json.dumps({"file": f"{i}.png", "caption": f"별 {i}"}, ensure_ascii=False) for i in (2, 0)]
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    data = CaptionedFolder(str(folder), size=16, repeats=3)
    assert len(data) == 6 and [data[i]["caption"] for i in range(3)] == ["별 2", "별 0", "별 2"]


@pytest.mark.parametrize("key", ["text", "caption", "prompt", "blip"])
def test_image_folders_of_the_hub(folder: Path, key: str) -> None:
    (folder / "more").mkdir()
    shutil.copy(folder / "0.png", folder / "more" / "x.png")
    rows = [{"file_name": "more/x.png", key: "a star, green", "id": 1}, {"file_name": "2.png", key: "two", "id": 2}]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = CaptionedFolder(str(folder), size=16, caption_key="blip" if key == "blip" else None)
    assert [data[i]["caption"] for i in range(2)] == ["a star, green", "two"] and len(data) == 2
    (folder / "metadata.jsonl").unlink()
    (folder / "metadata.csv").write_text(f'file_name,id,{key}\nmore/x.png,1,"a star, green"\n2.png,2,two\n')
    data = CaptionedFolder(str(folder), size=16, caption_key="blip" if key == "blip" else None)
    assert [data[i]["caption"] for i in range(2)] == ["a star, green", "two"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"file_name": "0.png", "label": 3}', "needs the keys 'file_name' and 'text', both text; it has: file_name"),
        ('{"file_name": "9.png", "text": "x"}', "line 1 .* names '9.png', which is not in the folder"),
        ("", r"metadata\.jsonl' is empty; a line is ..file_name.: .a.png., .text.: .a red star.."),
    ],
)
def test_a_broken_list_of_the_hub_is_explained(folder: Path, line: str, message: str) -> None:
    (folder / "metadata.jsonl").write_text(line)
    with pytest.raises(UserError, match=message):
        CaptionedFolder(str(folder))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops", r"line 1 of '.*captions\.jsonl' is not JSON"),
        ('{"file": "0.png"}', "line 1 .* needs the keys 'file' and 'caption'"),
        ("[1]", "needs the keys"),
        ('{"file": "9.png", "caption": "x"}', "names '9.png', which is not in the folder"),
        ("", "is empty"),
    ],
)
def test_a_broken_listing_is_explained(folder: Path, line: str, message: str) -> None:
    (folder / "captions.jsonl").write_text(line)
    with pytest.raises(UserError, match=message):
        CaptionedFolder(str(folder))


def test_a_folder_that_goes_away_while_it_is_read_is_one_sentence(folder: Path) -> None:
    captioned, plain = CaptionedFolder(str(folder), size=16), ImageFolder(str(folder), size=16)
    shutil.rmtree(folder)
    for data in (captioned, plain):
        with pytest.raises(UserError, match=r"none of the 4 pictures in '.*' can be read") as caught:
            data[1]
        assert "\n" not in str(caught.value)


def test_missing_and_empty_captions_are_named(folder: Path) -> None:
    (folder / "2.txt").write_text("  \n")
    with pytest.raises(UserError, match=r"2\.txt' is empty"):
        CaptionedFolder(str(folder))
    (folder / "2.txt").unlink()
    with pytest.raises(UserError, match=r"1 of 4 pictures in '.*' have no caption, the first is '2\.png'"):
        CaptionedFolder(str(folder))
    (folder / "2.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(UserError, match=r"the caption file '.*2\.txt' is not in UTF-8 \(line 1\)"):
        CaptionedFolder(str(folder))


def test_dropped_captions(folder: Path) -> None:
    data = CaptionedFolder(str(folder), size=8, caption_dropout=0.5, repeats=50)
    empty = sum(data[i]["caption"] == "" for i in range(len(data)))
    assert 70 < empty < 130


def test_random_crops_are_seeded(folder: Path) -> None:
    data, again = ImageFolder(str(folder), size=16, repeats=4), ImageFolder(str(folder), size=16, repeats=4)
    other = ImageFolder(str(folder), size=16, repeats=4, seed=1)
    assert len(data) == 16
    assert all(np.array_equal(data[i]["image"], again[i]["image"]) for i in range(16))
    assert not any(np.array_equal(data[i]["image"], other[i]["image"]) for i in range(16))
    assert not np.array_equal(data[0]["image"], data[4]["image"])  # the same picture, another crop
    with pytest.raises(IndexError):
        data[16]
    square = Image.open(folder / "0.png").convert("RGB").crop((0, 0, 30, 30))
    only = random_crop(square, 30, 0, 0, (0.5, 1.0), flip=False)  # any smaller part would have to be made larger
    assert np.array_equal(only, whole_crop(square, 30))


def test_a_centre_crop_is_the_middle(folder: Path) -> None:
    picture = np.asarray(Image.open(folder / "2.png"), np.float32) / 127.5 - 1
    found = ImageFolder(str(folder), size=40, crop="centre")[2]["image"]
    np.testing.assert_allclose(found, picture[:, 15:55], atol=1e-5)


def test_subfolders_are_read(folder: Path) -> None:
    (folder / "more").mkdir()
    Image.new("RGB", (20, 20)).save(folder / "more" / "x.jpg")
    assert len(ImageFolder(str(folder), size=8)) == 5


def test_unreadable_pictures_are_skipped(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "1.png").write_text("broken from the start")
    whole = (folder / "3.png").read_bytes()
    (folder / "3.png").write_bytes(whole[: len(whole) // 2])  # its header is fine
    with caplog.at_level(logging.WARNING):
        data = CaptionedFolder(str(folder), size=8)
        captions = [data[i]["caption"] for i in range(len(data))]
    assert captions == ["picture 0", "picture 2", "picture 0"]  # a picture always comes with its own caption
    assert "1.png" in caplog.text and "3.png" in caplog.text and "skipped 1 of 4" in caplog.text


def test_folders_that_cannot_be_used(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        ImageFolder(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="there is no crop 'diagonal'"):
        ImageFolder(str(folder), crop="diagonal")
    with pytest.raises(UserError, match="repeats must be at least 1"):
        ImageFolder(str(folder), repeats=0)
    for number in range(4):
        (folder / f"{number}.png").write_text("broken")
    with pytest.raises(UserError, match="none of the 4 pictures"):
        ImageFolder(str(folder))

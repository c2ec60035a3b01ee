"""Contents, styles and masks into pairs and names; shares of several processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm.util import UserError
from ldm.workflows.restyle.pairs import make_pairs, picture_names, pictures_at, read_pairs, shard


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two contents and three styles."""
    for name in ("cnt/a.jpg", "cnt/b.x.png", "sty/s.png", "sty/t.png", "sty/u.v.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    return tmp_path


def mask(path: Path) -> None:
    np.save(path, np.ones((8, 8), np.float32))


def names(folder: Path, masks: list[Path] | None = None) -> list[str]:
    contents, styles = pictures_at(folder / "cnt", "content"), pictures_at(folder / "sty", "style")
    return [pair.name for pair in make_pairs(contents, styles, masks)]


def test_every_content_with_every_style_under_the_names_of_the_original(folder: Path) -> None:
    assert names(folder) == [
        "a_stylized_s", "b_stylized_s", "a_stylized_t", "b_stylized_t", "a_stylized_u", "b_stylized_u",
    ]  # fmt: skip


def test_a_single_file_stands_for_a_folder(folder: Path) -> None:
    (pair,) = make_pairs(pictures_at(folder / "cnt" / "a.jpg", "c"), pictures_at(folder / "sty" / "s.png", "s"), None)
    assert (pair.content.name, [style.name for style in pair.styles], pair.masks) == ("a.jpg", ["s.png"], ())


def test_masks_beside_a_content_are_found_and_are_no_contents(folder: Path) -> None:
    mask(folder / "cnt" / "a_mask.npy")
    Image.new("L", (8, 8), 255).save(folder / "cnt" / "b_mask0.png")
    contents, styles = pictures_at(folder / "cnt", "content"), pictures_at(folder / "sty", "style")
    assert [path.name for path in contents] == ["a.jpg", "b.x.png"]
    pairs = make_pairs(contents, styles, None)
    assert len(pairs) == 6
    assert {(pair.content.name, *(m.name for m in pair.masks)) for pair in pairs} == {
        ("a.jpg", "a_mask.npy"), ("b.x.png", "b_mask0.png"),
    }  # fmt: skip
    assert not any(pair.masks for pair in make_pairs(contents, styles, []))


def test_a_mask_for_each_style_makes_one_result_of_all(folder: Path) -> None:
    for number in (10, 2, 0):
        mask(folder / "cnt" / f"a_mask{number}.npy")
    assert names(folder) == ["b_stylized_s", "b_stylized_t", "b_stylized_u", "a_stylized_s+t+u"]
    (pair,) = make_pairs([folder / "cnt" / "a.jpg"], pictures_at(folder / "sty", "style"), None)
    assert [m.name for m in pair.masks] == ["a_mask0.npy", "a_mask2.npy", "a_mask10.npy"]


def test_more_masks_than_styles_is_an_error(folder: Path) -> None:
    for number in range(4):
        mask(folder / "cnt" / f"a_mask{number}.npy")
    with pytest.raises(UserError, match=r"more masks than styles: '.*a\.jpg' has 4 mask.*a_mask3\.npy\) for 3 style"):
        names(folder)
    for number in (2, 3):
        (folder / "cnt" / f"a_mask{number}.npy").unlink()
    with pytest.raises(UserError, match=r"has 2 mask\(s\) \(a_mask0\.npy, a_mask1\.npy\) for 3 styles"):
        names(folder)


def test_a_file_of_pairs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mask(folder / "cnt" / "a_mask0.npy")
    mask(folder / "cnt" / "a_mask1.npy")
    listing = folder / "lists" / "pairs.txt"
    listing.parent.mkdir()
    listing.write_text('# remark\nb.x.png, s.png\n\na.jpg, s.png, t.png\n"b.x.png", t.png\nb.x.png,  s.png\n')
    pairs = read_pairs(listing, [folder / "cnt", folder / "sty"], None)
    assert [pair.name for pair in pairs] == ["b_stylized_s", "a_stylized_s+t", "b_stylized_t"]
    assert [m.name for m in pairs[1].masks] == ["a_mask0.npy", "a_mask1.npy"]
    assert not read_pairs(listing, [folder / "cnt", folder / "sty"], [])[1].masks

    listing.write_text("../cnt/a.jpg, ../sty/s.png, ../sty/t.png\n")
    assert [pair.name for pair in read_pairs(listing, [], None)] == ["a_stylized_s+t"]
    monkeypatch.chdir(folder)
    listing.write_text("cnt/b.x.png, sty/s.png\n")
    assert [pair.name for pair in read_pairs(listing, [], None)] == ["b_stylized_s"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no pairs"),
        ("cnt/a.jpg\n", "line 1 of .* needs a content and at least one style"),
        ("cnt/a.jpg, sty/s.png\ncnt/a.jpg, , sty/s.png\n", "line 2 of .* needs"),
        ("cnt/a.jpg, sty/nothing.png\n", "line 1 of .* names 'sty/nothing.png', which is no file"),
        ("cnt/b.x.png, sty/s.png, sty/t.png\n", r"has 1 mask\(s\) \(b_mask\.npy\) for 2 styles"),
    ],
)
def test_a_bad_file_of_pairs_is_one_sentence(folder: Path, text: str, message: str) -> None:
    mask(folder / "cnt" / "b_mask.npy")
    (folder / "pairs.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        read_pairs(folder / "pairs.txt", [], None)


def test_what_is_not_there(folder: Path) -> None:
    with pytest.raises(UserError, match=r"no content '.*nothing'"):
        pictures_at(folder / "nothing", "content")
    with pytest.raises(UserError, match="cannot read the pairs"):
        read_pairs(folder / "nothing.txt", [], None)
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match="holds no pictures"):
        pictures_at(folder / "empty", "style")


def test_names_stay_different() -> None:
    paths = [Path("f/a.1.jpg"), Path("f/a.2.jpg"), Path("f/b.jpg"), Path("f/b.png"), Path("f/c.jpg")]
    assert list(picture_names(paths).values()) != ["a", "a", "b", "b", "c"]
    assert picture_names(paths) == {
        paths[0]: "a.1", paths[1]: "a.2", paths[2]: "b.jpg", paths[3]: "b.png", paths[4]: "c",
    }  # fmt: skip
    with pytest.raises(UserError, match="have the same name"):
        picture_names([Path("f/a.jpg"), Path("g/a.jpg")])


def test_each_process_takes_its_share(folder: Path) -> None:
    pairs = make_pairs(pictures_at(folder / "cnt", "c"), pictures_at(folder / "sty", "s"), None)
    parts = [shard(pairs, {"RANK": str(rank), "WORLD_SIZE": "4"}) for rank in range(4)]
    assert parts[1] == [pairs[1], pairs[5]]
    assert sorted(p.name for part in parts for p in part) == sorted(p.name for p in pairs)
    assert shard(pairs, {}) == pairs
    for wrong in ({"RANK": "2", "WORLD_SIZE": "2"}, {"RANK": "one"}, {"RANK": "-1", "WORLD_SIZE": "2"}):
        with pytest.raises(UserError):
            shard(pairs, wrong)

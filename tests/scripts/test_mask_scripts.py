"""The commands that make and draw masks."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.pictures.masks import find_masks, read_mask
from ldm.util import MissingPartError, UserError
from scripts import draw_mask, make_mask


@pytest.fixture
def content(tmp_path: Path) -> Path:
    """A red square on blue, 40 wide and 30 high."""
    pixels = np.zeros((30, 40, 3), np.uint8)
    pixels[..., 2] = 200
    pixels[8:22, 10:30] = [220, 30, 20]
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["make_mask", *map(str, arguments)])
    make_mask.main()


def test_a_picture_becomes_a_mask(monkeypatch: pytest.MonkeyPatch, content: Path, tmp_path: Path) -> None:
    drawn = np.zeros((15, 20), np.uint8)
    drawn[:, 10:] = 128
    Image.fromarray(drawn).save(tmp_path / "drawn.png")
    run(monkeypatch, tmp_path / "drawn.png")
    assert read_mask(tmp_path / "drawn.npy").max() == pytest.approx(128 / 255)
    run(monkeypatch, tmp_path / "drawn.png", "--content", content, "--threshold", 0.4, "--invert")
    mask = read_mask(tmp_path / "photo_mask.npy")
    assert mask.shape == (30, 40) and mask[:, :20].min() == 1 and mask[:, 20:].max() == 0
    run(monkeypatch, tmp_path / "drawn.png", "--content", content, "--threshold", 0.4, "--feather", 2, "--number", 1)
    soft = read_mask(tmp_path / "photo_mask1.npy")
    assert 0 < soft[15, 19] < 0.5 < soft[15, 20] < 1
    assert [path.name for path in find_masks(content)] == ["photo_mask.npy", "photo_mask1.npy"]


def test_one_label_of_several_becomes_a_mask(monkeypatch: pytest.MonkeyPatch, content: Path, tmp_path: Path) -> None:
    labels = np.zeros((30, 40), np.uint8)
    labels[:10], labels[20:] = 1, 2
    Image.fromarray(labels).save(tmp_path / "labels.png")
    for number in (0, 1):
        run(monkeypatch, tmp_path / "labels.png", "--label", number + 1, "--content", content, "--number", number)
        assert torch.equal(
            read_mask(tmp_path / f"photo_mask{number}.npy"), torch.from_numpy(labels == number + 1).float()
        )
    colours = np.zeros((30, 40, 3), np.uint8)
    colours[:10, :, 0], colours[20:, :, 1] = 255, 255
    Image.fromarray(colours).save(tmp_path / "colours.png")
    run(monkeypatch, tmp_path / "colours.png", "--label", "0x00ff00", "--content", content)
    assert torch.equal(read_mask(tmp_path / "photo_mask.npy"), torch.from_numpy(labels == 2).float())


def test_what_is_transparent_in_strokes_is_open(monkeypatch: pytest.MonkeyPatch, content: Path, tmp_path: Path) -> None:
    strokes = np.zeros((30, 40, 4), np.uint8)  # transparent
    strokes[14:16, 12:28], strokes[1:3, 2:38] = 255, [0, 0, 0, 255]
    Image.fromarray(strokes).save(tmp_path / "strokes.png")
    run(monkeypatch, content, "--strokes", tmp_path / "strokes.png")
    mask = read_mask(tmp_path / "photo_mask.npy")
    assert mask[9:21, 11:29].min() == 1 and mask[:6].max() == 0 and mask.mean() < 0.4


def test_a_proposal_lies_beside_the_content(
    monkeypatch: pytest.MonkeyPatch, content: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, content, "--box", "6,4,36,26", "--preview", tmp_path / "seen.png")
    mask = read_mask(tmp_path / "photo_mask.npy")
    assert mask[9:21, 11:29].min() == 1 and mask[:4].max() == 0
    assert "photo_mask.npy: 40x30" in capsys.readouterr().out
    assert np.asarray(Image.open(tmp_path / "seen.png"))[0, 0, 2] == 50
    strokes = np.full((30, 40), 128, np.uint8)
    strokes[1:3, 2:38], strokes[14:16, 12:28] = 255, 0
    Image.fromarray(strokes).save(tmp_path / "strokes.png")
    run(monkeypatch, content, "--strokes", tmp_path / "strokes.png", "--number", 0)
    assert read_mask(tmp_path / "photo_mask0.npy")[10:20, 12:28].max() == 0
    run(monkeypatch, content, "--points", "20,15", "--not_points", "2,2", "38,28", "--out", tmp_path / "p.png")
    assert read_mask(tmp_path / "p.png")[10:20, 12:28].min() == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--box", "1,2,3"], "'1,2,3' should be left,top,right,bottom"),
        (["--points", "a,b"], "'a,b' should be x,y"),
        (["--points", "1,nan"], "should be x,y"),
        (["--threshold", "2"], "--threshold must lie between 0 and 1"),
        (["--threshold", "1"], "nothing is left of the mask"),
        (["--feather", "-1"], "feather"),
        (["--label", "two"], "--label should be a number such as 2"),
        (["--sam", "model"], "--sam needs marks"),
        (["--preview", "x.png"], "--preview needs the content"),
        (["--out", "mask.txt"], ".npy or .png"),
        (["--box", "1,1,9,9", "--sam", "nowhere"], "there is no SAM model"),
    ],
)
def test_bad_arguments_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch, content: Path, arguments: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run(monkeypatch, content, *arguments)
    assert not list(content.parent.glob("*mask*"))


def test_another_aspect_or_the_same_file(monkeypatch: pytest.MonkeyPatch, content: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", np.ones((30, 30), np.float32))
    with pytest.raises(UserError, match="another aspect"):
        run(monkeypatch, tmp_path / "m.npy", "--content", content)
    with pytest.raises(UserError, match="written over itself"):
        run(monkeypatch, tmp_path / "m.npy")


def layer(rows: slice, opacity: int = 255, size: tuple[int, int] = (30, 40)) -> np.ndarray:
    painted = np.zeros((*size, 4), np.uint8)
    painted[rows] = [200, 10, 10, opacity]
    return painted


def test_painted_layers_become_masks() -> None:
    masks = draw_mask.layers_to_masks([layer(slice(0, 10)), layer(slice(0, 0)), layer(slice(20, 30), 51)], (30, 40))
    assert len(masks) == 2
    assert masks[0][:10].min() == 1 and masks[0][10:].max() == 0
    assert masks[1][25, 5] == pytest.approx(0.2)
    (large,) = draw_mask.layers_to_masks([layer(slice(0, 30), size=(60, 80))], (30, 40))
    assert large.shape == (30, 40) and large[:14].min() == 1 and large[16:].max() == 0
    (soft,) = draw_mask.layers_to_masks([layer(slice(0, 10))], (30, 40), radius=2)
    assert 0.5 < soft[9, 5] < 1
    with pytest.raises(UserError, match="nothing is painted"):
        draw_mask.layers_to_masks([layer(slice(0, 0))], (30, 40))
    with pytest.raises(UserError, match=r"layer 1 has the shape \[30, 40, 3\]"):
        draw_mask.layers_to_masks([np.zeros((30, 40, 3), np.uint8)], (30, 40))


def test_masks_are_saved_under_the_names_that_are_found(content: Path) -> None:
    three = [torch.full((30, 40), value) for value in (0.25, 0.5, 1.0)]
    draw_mask.save_masks(content, three)
    assert [path.name for path in find_masks(content)] == [f"photo_mask{i}.npy" for i in range(3)]
    Image.new("L", (40, 30), 255).save(content.with_name("photo_mask7.png"))
    draw_mask.save_masks(content, three[:1])
    assert [path.name for path in find_masks(content)] == ["photo_mask.npy"]
    (again,) = draw_mask.layers_to_masks(draw_mask.masks_to_layers(three[:1]), (30, 40))
    assert (again - 0.25).abs().max() <= 0.5 / 255 + 1e-6


def test_without_gradio_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch, content: Path) -> None:
    plain = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.split(".")[0] == "gradio":
            raise ImportError(name)
        return plain(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingPartError, match=r"pip install -e \'\.\[web\]\'"):
        draw_mask.page(content)


def test_the_page_with_gradio(content: Path) -> None:
    pytest.importorskip("gradio")
    draw_mask.save_masks(content, [torch.ones(30, 40)])
    assert draw_mask.page(content).title == "Masks for photo.png"

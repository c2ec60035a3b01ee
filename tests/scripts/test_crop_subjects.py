"""Squares around a thing in photographs of it, by the command."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from ldm.data.personalized import PersonalizedBase
from ldm.pictures.mask_proposals import Marks
from ldm.pictures.masks import read_mask, write_mask
from ldm.pictures.subjects import cut_out
from ldm.util import UserError
from ldm.workflows import subject_crops
from scripts import crop_subjects

BLUE, RED = (40, 70, 200), (230, 40, 30)


def photograph(path: Path, box: tuple[int, int, int, int] = (120, 20, 180, 80)) -> Path:
    """A red disc on blue, 200 wide and 120 high."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (200, 120), BLUE)
    ImageDraw.Draw(image).ellipse(box, fill=RED)
    image.save(path)
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["crop_subjects", *map(str, arguments)])
    crop_subjects.main()


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"), int)


def test_squares_with_their_masks_and_captions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photographs, out = tmp_path / "photos", tmp_path / "out"
    photograph(photographs / "a.bmp")
    photograph(photographs / "b.v2.png", (20, 30, 70, 80))
    (photographs / "a.txt").write_text("a * on blue\n")
    run(monkeypatch, photographs, "--outdir", out)
    assert sorted(p.name for p in out.iterdir()) == ["a.png", "a.txt", "a_mask.png", "b.v2.png", "b.v2_mask.png"]
    red = pixels(out / "b.v2.png")[..., 0] > 128
    assert red.shape == (66, 66), "51 pixels, and 15 % of them at each side"
    mask = read_mask(out / "b.v2_mask.png").numpy() > 0.5
    assert (red & mask).sum() / (red | mask).sum() > 0.9
    said = capsys.readouterr().out
    assert "a.png: 79x79, 4" in said and f"learn from them: --data_root {out}" in said
    data = PersonalizedBase(str(out), size=32, flip_p=0, captions="auto")
    assert len(data.examples) == 2 and data[0]["caption"] == "a * on blue" and 0.2 < data[1]["loss_mask"].mean() < 0.7


def test_fills_and_margins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photographs = tmp_path / "photos"
    for name in "ab":
        write_mask(discs_mask(), photograph(photographs / f"{name}.png").with_name(f"{name}_mask.png"))
    run(monkeypatch, photographs, "--outdir", tmp_path / "grey", "--fill", "neutral", "--margin", "0")
    grey = pixels(tmp_path / "grey/a.png")
    assert grey.shape == (61, 61, 3) and grey[0, 0].tolist() == [128] * 3 and grey[30, 30].tolist() == list(RED)
    assert not list((tmp_path / "grey").glob("*mask*")), "the whole square is learned"
    for seed in (0, 0, 1):
        out = tmp_path / f"random{seed}"
        if not out.exists():
            run(monkeypatch, photographs, "--outdir", out, "--fill", "random", "--seed", seed, "--masks")
    corners = [tuple(pixels(tmp_path / f"random{seed}/{name}.png")[0, 0]) for seed in (0, 1) for name in "ab"]
    assert len(set(corners)) == 4 and BLUE not in corners
    assert (tmp_path / "random0/a_mask.png").exists()
    run(monkeypatch, photographs, "--outdir", tmp_path / "soft", "--fill", "black", "--feather", "3")
    edge = pixels(tmp_path / "soft/a.png")[39]
    assert len(np.unique(edge[:, 0])) > 8, "from black to red in steps"


def discs_mask() -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(120), torch.arange(200), indexing="ij")
    return ((columns - 150) ** 2 + (rows - 50) ** 2 <= 30**2).float()


def test_a_long_thing_is_not_cut_off() -> None:
    """Where it is longer than the picture is high, the square reaches beyond it, and nothing is learned there."""
    image, mask = Image.new("RGB", (200, 60), BLUE), torch.zeros(60, 200)
    mask[20:40, 10:170] = 1
    square = cut_out(image, mask)
    assert square.picture.size == (160, 160) and square.mask is not None and int((square.mask > 0.5).sum()) == 20 * 160
    shown = np.asarray(square.picture)
    assert (shown[:50] == 128).all() and (shown[50:110] == BLUE).all() and (shown[110:] == 128).all()
    assert square.mask[:50].max() == 0 and square.mask[110:].max() == 0
    filled = np.asarray(cut_out(image, mask, fill=(1, 2, 3)).picture)
    assert (filled[50:70] == (1, 2, 3)).all() and (filled[75:85] == BLUE).all()


def test_strokes_say_which_thing_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photographs, strokes = tmp_path / "photos", tmp_path / "strokes"
    image = Image.open(photograph(photographs / "a.png"))
    ImageDraw.Draw(image).ellipse((20, 30, 70, 80), fill=(240, 220, 30))
    image.save(photographs / "a.png")
    strokes.mkdir()
    drawn = Image.new("L", (200, 120), 128)
    ImageDraw.Draw(drawn).line((30, 55, 60, 55), fill=255, width=1)
    ImageDraw.Draw(drawn).line((150, 30, 150, 70), fill=0, width=1)
    drawn.save(strokes / "a.png")
    run(monkeypatch, photographs, "--outdir", tmp_path / "out", "--strokes", strokes, "--fill", "white")
    shown = pixels(tmp_path / "out/a.png")
    assert 60 <= len(shown) <= 72, "the yellow disc alone"
    assert shown[len(shown) // 2, len(shown) // 2].tolist() == [240, 220, 30] and shown[1, 1].tolist() == [255] * 3


def test_a_network_looks_into_the_box_around_what_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a SAM model makes of a box is shown in tests/pictures/test_mask_proposals.py."""
    opened: list[str] = []
    asked: list[Marks] = []

    class Network:
        def __init__(self, folder: str) -> None:
            opened.append(folder)

        def propose(self, image: Image.Image, marks: Marks) -> torch.Tensor:
            asked.append(marks)
            return discs_mask()

    monkeypatch.setattr(subject_crops, "Sam", Network)
    for name in ("a.png", "b.png"):
        photograph(tmp_path / "photos" / name)
    run(monkeypatch, tmp_path / "photos", "--outdir", tmp_path / "out", "--sam", "models/sam")
    marks = asked[0]
    assert opened == ["models/sam"] and len(asked) == 2, "read once for all"
    assert marks.box is not None and np.allclose(marks.box, (120, 20, 181, 81), atol=3)
    assert pixels(tmp_path / "out/a.png").shape == (79, 79, 3)


def test_a_picture_without_a_thing_is_named_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    photograph(tmp_path / "photos/a.png")
    Image.new("RGB", (200, 120), BLUE).save(tmp_path / "photos/plain.png")
    run(monkeypatch, tmp_path / "photos", "--outdir", tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"a.png", "a_mask.png"}
    assert "plain.png' is left out: nothing was found" in caplog.text
    (tmp_path / "photos/a.png").unlink()
    with pytest.raises(UserError, match=r"in none of the 1 pictures .* draw masks or strokes"):
        run(monkeypatch, tmp_path / "photos", "--outdir", tmp_path / "other")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--margin", "-1"], "a margin of -1 cannot be"),
        (["--margin", "nan"], "a margin of nan cannot be"),
        (["--feather", "-1"], "a feather of -1 pixels cannot be"),
        (["--feather", "inf"], "a feather of inf pixels cannot be"),
        (["--feather", "nan"], "a feather of nan pixels cannot be"),
        (["--feather", "1e308"], r"a feather of 1e\+308 pixels cannot be; 0 is a hard edge, 10000 the softest"),
        (["--strokes", "nowhere"], "there is no folder 'nowhere' with strokes"),
        (["--sam", "nowhere"], "there is no SAM model"),
    ],
)
def test_settings_that_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    photograph(tmp_path / "photos/b.png")
    write_mask(discs_mask(), photograph(tmp_path / "photos/a.png").with_name("a_mask.png"))  # needs no network
    with pytest.raises(UserError, match=message):
        run(monkeypatch, tmp_path / "photos", "--outdir", tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["b.png", "b_mask.png", "b.txt"])
def test_no_file_is_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    photographs, out = tmp_path / "photos", tmp_path / "out"
    for one in ("a", "b"):
        write_mask(discs_mask(), photograph(photographs / f"{one}.jpg").with_name(f"{one}_mask.png"))
        (photographs / f"{one}.txt").write_text("a disc")
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(UserError, match=f"{name}' is there already, and would be written over"):
        run(monkeypatch, photographs, "--outdir", out)
    assert [p.name for p in out.iterdir()] == [name] and (out / name).read_text() == "mine"
    there = {path: path.read_bytes() for path in photographs.iterdir()}
    with pytest.raises(UserError, match="is the folder of the photographs: the squares need another one"):
        run(monkeypatch, photographs, "--outdir", photographs / ".." / "photos")
    assert {path: path.read_bytes() for path in photographs.iterdir()} == there


def test_files_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong file of the second picture is said before anything of the first is written."""
    photographs, out = tmp_path / "photos", tmp_path / "out"
    for name in ("a.png", "b.png"):
        photograph(photographs / name)
    run(monkeypatch, photographs, "--outdir", out)
    with pytest.raises(UserError, match="is there already, and would be written over"):
        run(monkeypatch, photographs, "--outdir", out)
    wrong = tmp_path / "wrong"
    (photographs / "b.jpg").write_bytes((photographs / "b.png").read_bytes())
    with pytest.raises(UserError, match=r"would both become 'b\.png': rename one"):
        run(monkeypatch, photographs, "--outdir", wrong)
    (photographs / "b.jpg").unlink()
    (tmp_path / "strokes").mkdir()
    Image.new("L", (20, 20), 255).save(tmp_path / "strokes/b.png")
    with pytest.raises(UserError, match="the strokes have 20x20 pixels, the picture 200x120"):
        run(monkeypatch, photographs, "--outdir", wrong, "--strokes", tmp_path / "strokes")
    write_mask(torch.ones(3, 3), photographs / "b_mask.png")
    with pytest.raises(UserError, match=r"b_mask\.png' has 3x3 pixels, its content needs 200x120"):
        run(monkeypatch, photographs, "--outdir", wrong)
    write_mask(torch.ones(120, 200), photographs / "b_mask1.png")
    with pytest.raises(UserError, match="has 2 masks"):
        run(monkeypatch, photographs, "--outdir", wrong)
    assert not wrong.exists()

"""The commands that show what attention does: numbers against attention written out, files, errors."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.control import FeatureStore
from ldm.pictures.sizing import Sizing, look_at
from ldm.util import UserError
from ldm.workflows.look.inspection import Spot, draw_spots, read_spots, spots_in
from ldm.workflows.look.inspection_plots import component_pictures
from scripts import attention_histogram, attention_map
from tests.helpers import ROOT
from tests.workflows.small_model import write_small_model

LAYER = "output_blocks.1.1.transformer_blocks.0.attn1"
PROMPT = "a red circle on a blue background"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model, a content, two styles and a mask for each."""
    folder = tmp_path_factory.mktemp("look")
    write_small_model(folder / "model")
    for seed, name in enumerate(("photo", "art", "more")):
        pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    left = np.zeros((32, 32), np.float32)
    left[:, :16] = 1
    np.save(folder / "left.npy", left)
    np.save(folder / "right.npy", 1 - left)
    return folder


def run(monkeypatch: pytest.MonkeyPatch, command: ModuleType, folder: Path, out: Path, *arguments: object) -> None:
    usual = ["--ckpt", folder / "model" / "model.safetensors", "--steps", 4, "--device", "cpu", "--out", out]
    monkeypatch.setattr(sys, "argv", ["command", *map(str, [*usual, *arguments])])
    command.main()


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_histogram_of_one_style(monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path) -> None:
    given = ("--cnt", folder / "photo.png", "--sty", folder / "art.png", "--xy", "9,14", "30,2", "--timesteps", "501,1")
    run(monkeypatch, attention_histogram, folder, tmp_path, *given, "--gamma", 1, "--T", 2)
    assert Image.open(tmp_path / "photo_stylized_art_histogram.png").width > 400
    rows = table(tmp_path / "photo_stylized_art_numbers.csv")
    assert len(rows) == 2 * 2 * 2 * 2  # timesteps, sides, heads, queries
    assert {(row["query_row"], row["query_column"]) for row in rows} == {("3", "2"), ("0", "7")}
    assert {(row["when"], row["source"]) for row in rows} == {("before", "content"), ("after", "style art")}
    assert all(float(row["mass"]) == pytest.approx(1, abs=1e-4) for row in rows)
    assert all(float(row["top1_mass"]) <= float(row["top10_mass"]) <= 1 for row in rows)

    kept = tmp_path / "kept.safetensors"
    run(monkeypatch, attention_map, folder, tmp_path, "--image", folder / "photo.png", "--xy", "9,14",
        "--layers", LAYER, "--timesteps", 1, "--save", kept)  # fmt: skip
    run(monkeypatch, attention_map, folder, tmp_path, "--image", folder / "art.png", "--xy", "0,0",
        "--layers", LAYER, "--timesteps", 1, "--save", tmp_path / "art.safetensors")  # fmt: skip
    content, style = FeatureStore.load(kept), FeatureStore.load(tmp_path / "art.safetensors")
    q = content.at(LAYER, 1, "q")[0, :, 3 * 8 + 2].float()
    for when, k, factor in (("before", content, 1.0), ("after", style, 2.0)):
        logits = factor * q.shape[-1] ** -0.5 * (k.at(LAYER, 1, "k")[0].float() @ q[:, :, None])[..., 0]
        probs = logits.softmax(dim=-1)
        for head in range(2):
            wanted = {"when": when, "timestep": "1", "head": str(head), "query_row": "3"}
            (row,) = [r for r in rows if wanted.items() <= r.items()]
            assert float(row["logit_max"]) == pytest.approx(float(logits[head].max()), abs=0.02)
            entropy = float(-(probs[head] * probs[head].log()).sum())
            assert float(row["entropy"]) == pytest.approx(entropy, abs=0.02)
    bins = table(tmp_path / "photo_stylized_art_bins.csv")
    total = sum(int(row["count"]) for row in bins if row["timestep"] == "1" and row["when"] == "after")
    assert total == 2 * 2 * 64  # heads, queries, keys


def test_the_picture_beside_a_histogram_is_finished_as_every_result_is(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    made = []
    for out, flags in ((tmp_path / "plain", []), (tmp_path / "coloured", ["--keep_color"])):
        pictures = ["--cnt", folder / "photo.png", "--sty", folder / "art.png"]
        run(monkeypatch, attention_histogram, folder, out, *pictures, "--xy", "8,8", *flags)
        made.append(np.asarray(Image.open(out / "photo_stylized_art.png").convert("YCbCr")).astype(int))
    content = np.asarray(Image.open(folder / "photo.png").convert("YCbCr")).astype(int)
    assert abs(made[1] - content)[..., 1:].mean() < abs(made[0] - content)[..., 1:].mean() / 2


def test_histogram_of_a_mix(monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path) -> None:
    run(monkeypatch, attention_histogram, folder, tmp_path, "--cnt", folder / "photo.png",
        "--sty", folder / "art.png", folder / "more.png", "--masks", folder / "left.npy", folder / "right.npy",
        "--pi", 0.8, "--inside", folder / "left.npy", "--random", 5, "--seed", 3, "--heads", 1)  # fmt: skip
    rows = table(tmp_path / "photo_stylized_art+more_numbers.csv")
    after = [row for row in rows if row["when"] == "after"]
    assert len(after) == 5 * 4 and all(int(row["query_column"]) < 4 and row["head"] == "1" for row in rows)
    mass = {source: {float(r["mass"]) for r in after if r["source"] == source} for source in
            ("content", "style art", "style more", "all")}  # fmt: skip
    for source, share in (("content", 0.2), ("style art", 0.8), ("style more", 0.0), ("all", 1.0)):
        assert mass[source] and all(abs(m - share) < 1e-3 for m in mass[source])
    before = {r["logit_max"]: r for r in rows if r["when"] == "before"}
    assert len(before) == 5
    run(monkeypatch, attention_histogram, folder, tmp_path / "all", "--cnt", folder / "photo.png", "--random", 5,
        "--sty", folder / "art.png", folder / "more.png", "--mix", "competition", "--sharpen")  # fmt: skip
    assert (tmp_path / "all" / "photo_stylized_art+more.png").is_file()


def test_map_of_a_place_and_of_a_word(monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path) -> None:
    run(monkeypatch, attention_map, folder, tmp_path, "--image", folder / "photo.png", "--xy", "9,14", "--heads", 0)
    assert Image.open(tmp_path / "photo_look.png").width > 400
    assert len(list((tmp_path / "photo_look").glob("output*_t*.png"))) == 4 * 1
    kept = tmp_path / "word.safetensors"
    run(monkeypatch, attention_map, folder, tmp_path, "--prompt", PROMPT, "--word", "red circle", "--save", kept)
    assert (tmp_path / "a_red_circle_on_a_blue_background_red circle.png").is_file()
    store = FeatureStore.load(kept)
    assert json.loads(store.metadata["names"]) == ["q", "k", "sim"] and store.metadata["prompt"] == PROMPT
    site, timestep = store.sites[0], store.timesteps[0]
    assert site.endswith("attn2") and store.at(site, timestep, "sim").shape == (1, 2, 64, 8)
    q, k = (store.at(site, timestep, name).float() for name in "qk")
    expected = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    torch.testing.assert_close(store.at(site, timestep, "sim").float(), expected, atol=0.02, rtol=0.02)
    run(monkeypatch, attention_map, folder, tmp_path, "--image", folder / "photo.png", "--prompt", PROMPT,
        "--word", "blue")  # fmt: skip
    assert (tmp_path / "photo_blue.png").is_file()


@pytest.mark.parametrize("feature", ["q", "residual"])
def test_principal_components(monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path, feature: str) -> None:
    run(monkeypatch, attention_map, folder, tmp_path, "--image", folder / "photo.png", "--pca", feature)
    assert (tmp_path / f"photo_{feature}.png").is_file()


def test_components_show_what_differs() -> None:
    steps = torch.zeros(2, 6, 5)
    steps[:, 3:, 2] = 4.0
    steps[1] += 100.0  # what all positions share does not show
    first, second = component_pictures([(values, (2, 3)) for values in steps])
    assert first.size == (3, 2) and np.array_equal(np.asarray(first), np.asarray(second))
    colours = np.asarray(first)[..., 0].flatten().tolist()
    assert colours[:3] == [0] * 3 and colours[3:] == [255] * 3


def test_places(folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (100, 60)).save(tmp_path / "wide.png")
    kept = look_at(tmp_path / "wide.png", Sizing(4, 50))
    assert kept.size == (32, 48) or kept.size == (28, 48)
    (spot,) = read_spots(["99,59"], kept)
    assert spot.cell(kept.size, (kept.size[0] // 4, 12)) == kept.size[0] // 4 * 12 - 1
    square = look_at(tmp_path / "wide.png", Sizing(4, 50, (32, 32)))
    (spot,) = read_spots(["50,30"], square)
    assert abs(spot.x - 16.27) < 0.1 and abs(spot.y - 16.27) < 0.1
    with pytest.raises(UserError, match="cut off"):
        read_spots(["5,30"], square)
    mask = torch.zeros(32, 32)
    mask[:8, 16:20] = 1
    spots = spots_in(mask, (32, 32), 4)
    assert spots == [Spot(18, 2), Spot(18, 6)]
    many = spots_in(None, (32, 32), 4)
    assert draw_spots(many, 3, 0) == draw_spots(many, 3, 0) != draw_spots(many, 3, 1)


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (attention_histogram, "--xy 32,2", "position 32,2 lies outside of '.*', which has 32x32 pixels"),
        (attention_histogram, "--xy a,b", "'a,b' should be x,y in pixels"),
        (attention_histogram, "", "say where to look"),
        (attention_histogram, "--xy 1,1 --random 2", "not both"),
        (attention_histogram, "--random 99", "of 64 positions 1 to 64 can be drawn at random, got 99"),
        (attention_histogram, "--xy 1,1 --heads 2", "there is no head 2 at 'output_blocks.1.*', which has 2"),
        (attention_histogram, "--xy 1,1 --heads x", "--heads takes numbers"),
        (attention_histogram, "--xy 1,1 --timesteps 500", "timestep 500 is not visited in 3 steps; the nearest is 501"),
        (attention_histogram, "--xy 1,1 --layers 7", "output_blocks.7"),
        (attention_histogram, "--xy 1,1 --layers 0", "attention is not changed at 'output_blocks.0"),
        (attention_histogram, "--inside nowhere.npy", "there is no mask file"),
        (attention_histogram, "--xy 1,1 --masks a.npy b.npy", "more masks than styles"),
        (attention_map, "--xy 40,1", "lies outside"),
        (attention_map, "--prompt red --word blue", "the prompt 'red' has no word 'blue'"),
        (attention_map, "--word blue", "the word 'blue' needs the prompt"),
        (attention_map, "--pca q --xy 1,1", "one thing at a time"),
        (attention_map, "", "say what to look at"),
        (attention_map, "--pca q --save x.pt", "--save writes a .safetensors file"),
        (attention_map, "--pca q --layers 7", "output_blocks.7"),
        (attention_map, "--pca q --timesteps 7", "timestep 7 is not visited"),
        (attention_map, "--pca q --steps 0", "--steps must be at least 1"),
    ],
)
def test_errors(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path, command: Any, arguments: str, message: str
) -> None:
    pictures = ["--cnt", folder / "photo.png", "--sty", folder / "art.png"]
    if command is attention_map:
        pictures = ["--image", folder / "photo.png"]
    with pytest.raises(UserError, match=message):
        run(monkeypatch, command, folder, tmp_path / "none", *pictures, *arguments.split())
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (attention_map, "--pca q --outdir"), (attention_map, "--pca q --save"),
        (attention_histogram, "--xy 1,1 --outdir"),
    ],
)  # fmt: skip
def test_a_place_that_cannot_be_written_into_is_told_before_a_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path, command: Any, arguments: str
) -> None:
    file = tmp_path / "file"
    file.touch()
    place = file / "a.safetensors" if "--save" in arguments else file
    pictures = {attention_map: ["--image", folder / "photo.png"]}.get(
        command, ["--cnt", folder / "photo.png", "--sty", folder / "art.png"]
    )
    monkeypatch.setattr(command, "open_studio", None)
    option = arguments.split()[-1]
    with pytest.raises(UserError, match=f"{option}: '.*file' is a file"):
        run(monkeypatch, command, folder, tmp_path / "none", *pictures, *arguments.split(), place)


def test_a_picture_made_of_a_prompt_has_no_pixels_to_name(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="--xy are pixels of a file: add --image"):
        run(monkeypatch, attention_map, folder, tmp_path, "--prompt", "red", "--xy", "1,1")


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of docs/look-inside.md are understood, and its Python runs on what --save writes."""
    page = (ROOT / "docs" / "look-inside.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len([line for line in block.splitlines() if line.strip()]) <= 5
    quick = ["--longest", "64", "--steps", "4", "--timesteps", "501", "--save", "cat.safetensors"]
    monkeypatch.setattr(sys, "argv", ["attention_map", *quick])
    before = Path.cwd()
    os.chdir(tmp_path)
    names: dict[str, Any] = {}
    try:
        attention_map.main()
        exec(compile(block, "docs/look-inside.md", "exec"), names)
    finally:
        os.chdir(before)
    assert names["q"].ndim == 4 and names["looks"].sum().item() == pytest.approx(3, abs=0.03)  # of 3 heads
    for picture in re.findall(r"\((pictures/[^)]+)\)", page):
        assert (ROOT / "docs" / picture).is_file()

"""Results of restyling measured against contents and styles, beside baselines with known values."""

from __future__ import annotations

import csv
import json
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ldm.metrics.distance import Distance
from ldm.pictures.images import load_image
from ldm.util import UserError
from ldm.workflows.measure import judges as judging
from ldm.workflows.measure.baselines import Pictures, reinhard, ways
from ldm.workflows.measure.evaluate import EvaluateOptions, Evaluation, evaluate_style, measure
from ldm.workflows.measure.judges import Judges, PairMeasure
from ldm.workflows.measure.report import as_json, original_lines, table
from ldm.workflows.measure.trios import Trio, copy_inputs, match
from scripts import copy_inputs as copy_command
from scripts import evaluate_style as command
from tests.metrics.drawn import write_networks
from tests.workflows.restyling import picture

NAMES = ("a", "b")
STYLES = ("s", "t.old")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two contents, two styles, four results, and a sheet beside these."""
    root = tmp_path_factory.mktemp("measured")
    for number, name in enumerate(NAMES):
        picture(root / "cnt" / f"{name}.png", number, (80, 96))
    for number, name in enumerate(STYLES):
        picture(root / "sty" / f"{name}.png", 10 + number, (88, 80))
    for number, (content, style) in enumerate((c, s) for c in NAMES for s in STYLES):
        picture(root / "out" / f"{content}_stylized_{style.split('.')[0]}.png", 20 + number, (40, 48))
    picture(root / "out" / "contact_sheet.png", 9)
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_networks(folder, "alexnet", "vgg19", "art_inception")
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No weights from elsewhere, and a short side of 80 in place of 512."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(judging, "SHORT", 80)


def options(folders: Path, **changes: Any) -> EvaluateOptions:
    given = {name: str(folders / part) for name, part in (("tar", "out"), ("cnt", "cnt"), ("sty", "sty"))}
    common = {"weights": str(folders / "none"), "progress": False, "baselines": ("content", "style"), "out": "unused"}
    return EvaluateOptions(**{**given, **common, **changes})


@pytest.fixture(scope="module")
def evaluation(folders: Path, weights: Path) -> Evaluation:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judging, "SHORT", 80)
        return evaluate_style(options(folders, weights=str(weights), any_weights=True))


def test_known_values_of_the_baselines(evaluation: Evaluation) -> None:
    content, style = (
        {name: number.value for name, number in evaluation.numbers[way].items()} for way in ("content", "style")
    )
    assert content["LPIPS"] == content["LPIPS_gray"] == 0
    assert content["CFSD"] == 0
    assert content["edges"] == pytest.approx(0, abs=1e-5) == content["ssim"]
    assert content["ArtFID"] == pytest.approx(1 + content["FID_infinity"])
    assert style["FID"] == pytest.approx(0, abs=1e-6)
    assert style["histogram"] == style["colour"] == style["texture"] == 0
    assert style["ArtFID"] == pytest.approx(1 + style["LPIPS"], abs=1e-5)
    results = {name: number.value for name, number in evaluation.numbers["results"].items()}
    assert min(results[name] for name in ("LPIPS", "CFSD", "FID", "histogram", "colour", "texture", "edges")) > 0
    assert results["ArtFID"] == pytest.approx((1 + results["LPIPS"]) * (1 + results["FID"]))
    assert results["LPIPS"] != results["LPIPS_gray"]


def test_intervals_hold_the_values(evaluation: Evaluation) -> None:
    for number in evaluation.numbers["results"].values():
        assert number.interval[0] <= number.value <= number.interval[1]


def test_the_report_names_the_networks_and_what_is_left_out(evaluation: Evaluation) -> None:
    text = table(evaluation)
    assert "art_inception.pth sha256 " in text and "no published hash to compare with" in text
    assert "alexnet-owt-7be5be79.pth" in text and "NOT the published file" in text
    assert "FID_2015, KID_2015 left out: there is no '" in text and "'python -m scripts.download fid-inception'" in text
    assert "short side 512 by LPIPS, FID, FID_infinity, KID" in text
    assert "compare only with those of as many" in text
    assert original_lines(evaluation)[0].startswith("ArtFID: ")
    assert json.dumps(as_json(evaluation, {}))


def test_no_number_stands_for_another(folders: Path, weights: Path) -> None:
    without = evaluate_style(options(folders, baselines=()))
    assert set(without.numbers["results"]) == {"histogram", "colour", "texture", "edges", "ssim"}
    assert [sentence.split(" left out")[0] for sentence in without.judges.left_out] == [
        "ArtFID, LPIPS, LPIPS_gray", "CFSD", "ArtFID, FID, FID_infinity, KID", "FID_2015, KID_2015",
        "CLIP_style, CLIP_content, CLIP_text",
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"alexnet-owt-7be5be79.pth' is not the file of that name"):
        evaluate_style(options(folders, weights=str(weights)))


@pytest.mark.parametrize(("name", "title"), [("ssim", "1-SSIM"), ("alexnet", "AlexNet")])
def test_other_content_metrics(folders: Path, weights: Path, name: str, title: str) -> None:
    chosen = judging.find_judges(judging.Wanted(str(weights) if name == "alexnet" else "none", True, name))
    one = match(folders / "out", folders / "cnt", folders / "sty")[:1]
    made_by = {"content": lambda p: p.content, "style": lambda p: p.style}
    found, _ = measure(one, Judges({title: chosen.pairs[title]}), made_by)
    assert found["content"].values[title] == [pytest.approx(0, abs=1e-6)]
    assert found["style"].values[title][0] > 0.1


def test_results_are_matched_by_name_or_by_order(folders: Path, tmp_path: Path) -> None:
    by_name = match(folders / "out", folders / "cnt", folders / "sty")
    assert [(t.content.stem, t.style.stem) for t in by_name] == [(c, s) for c in NAMES for s in STYLES]
    copies = tmp_path / "copies"
    for part in ("cnt", "sty"):
        (copies / part).mkdir(parents=True)
        for path in (folders / part).iterdir():
            (copies / part / path.name).write_bytes(path.read_bytes())
    contents, styles = copy_inputs(copies / "cnt", f"{copies / 'sty'}/")
    assert (contents.name, styles.name) == ("cnt_eval", "sty_eval")
    by_order = match(folders / "out", contents, styles)
    assert [load_image(t.style).tobytes() for t in by_order] == [load_image(t.style).tobytes() for t in by_name]
    assert [load_image(t.content).tobytes() for t in by_order] == [load_image(t.content).tobytes() for t in by_name]
    picture(contents / "one_more.png", 1)
    with pytest.raises(UserError, match=r"4 results, .* 5 contents and .* 4 styles"):
        match(folders / "out", contents, styles)


def test_reinhard_takes_the_styles_statistics(folders: Path) -> None:
    content, style = load_image(folders / "cnt" / "a.png"), load_image(folders / "sty" / "s.png")
    grey = Image.new("RGB", style.size, (120, 130, 140))
    made = reinhard(Pictures(content, content, grey))
    assert max(abs(high - low) for low, high in made.getextrema()) <= 1  # type: ignore[misc]
    assert made.getpixel((3, 3)) == pytest.approx((120, 130, 140), abs=1)


def test_only_one_trio_is_in_memory(folders: Path) -> None:
    trios = match(folders / "out", folders / "cnt", folders / "sty") * 5
    alive: list[weakref.ref[Pictures]] = []
    most = []

    def way(pictures: Pictures) -> Image.Image:
        alive.append(weakref.ref(pictures))
        most.append(sum(one() is not None for one in alive))
        return pictures.result

    judges = Judges({"mean": PairMeasure("style", Distance(lambda x: x.mean(), lambda a, b: float(a - b)))})
    found, _ = measure([Trio(str(i), t.result, t.content, t.style) for i, t in enumerate(trios)], judges, {"way": way})
    assert len(found["way"].values["mean"]) == 20 and max(most) == 1


def test_the_command(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    places = ["--tar", f"{folders}/out", "--cnt", f"{folders}/cnt", "--sty", f"{folders}/sty", "--out", f"{tmp_path}/e"]
    old = ["--batch_size", "1", "--num_workers", "8", "--mode", "art_fid", "--content_metric", "lpips"]
    monkeypatch.setattr(sys, "argv", ["x", *places, *old, "--baselines", "latents", "reinhard", "histogram"])
    command.main()
    shown = capsys.readouterr().out
    assert "| latents |" in shown and "color matching loss: " in shown
    with (tmp_path / "e" / "pairs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 4 and {row["way"] for row in rows} == {"results", "latents", "reinhard", "histogram"}
    kept = json.loads((tmp_path / "e" / "summary.json").read_text())
    mean = sum(float(row["colour"]) for row in rows if row["way"] == "reinhard") / 4
    assert kept["numbers"]["reinhard"]["colour"]["value"] == pytest.approx(mean, rel=1e-4)
    assert kept["pairs"] == 4 and kept["settings"]["mode"] == "art_fid"
    assert (tmp_path / "e" / "table.md").read_text() in shown
    sheet = Image.open(tmp_path / "e" / "sheet.png")
    assert sheet.width > 6 * 48 and sheet.height > 4 * 40


def test_the_copying_command(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for part in ("cnt", "sty"):
        picture(tmp_path / part / "x.png", 1)
    monkeypatch.setattr(sys, "argv", ["x", "--cnt", f"{tmp_path}/cnt", "--sty", f"{tmp_path}/sty"])
    copy_command.main()
    assert (tmp_path / "cnt_eval" / "x_stylized_x.png").is_file() and "sty_eval" in capsys.readouterr().out


def test_features_of_clip(folders: Path, tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    from tests.modules.encoders.vocabularies import bpe_size, write_bpe

    folder = write_bpe(tmp_path / "clip")
    size = bpe_size(folder)
    part = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**part, "vocab_size": size, "max_position_embeddings": 12, "eos_token_id": size - 1}
    config = CLIPConfig(text_config=text, vision_config={**part, "image_size": 32, "patch_size": 8}, projection_dim=8)
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    judges = judging.find_judges(judging.Wanted("none", clip=str(folder), text="a red cat", content_text="a cat"))
    judges.pairs = {name: measure for name, measure in judges.pairs.items() if name.startswith("CLIP")}
    trios = match(folders / "out", folders / "cnt", folders / "sty")[:2]
    known = ways()
    found, _ = measure(trios, judges, {name: known[name] for name in ("results", "content", "style")})
    assert found["content"].values["CLIP_content"] == pytest.approx([1, 1])
    assert found["style"].values["CLIP_style"] == pytest.approx([1, 1])
    assert found["content"].values["CLIP_direction"] == [0, 0]  # nothing changed
    assert all(0 < abs(value) <= 1 for value in found["results"].values["CLIP_text"])
    assert found["results"].values["CLIP_direction"] != [0, 0]

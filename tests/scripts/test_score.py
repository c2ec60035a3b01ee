"""The scorer, from the commands a person runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm.checkpoint import save_state_dict
from ldm.modules.scorer import AttributeScorer
from ldm.pictures.images import save_image
from ldm.util import UserError
from ldm.world.attributes import combinations
from ldm.world.captions import caption, parse
from ldm.world.render import render
from ldm.world.scoring import compare, labels
from scripts import score, train_scorer, world_prompts


def run(monkeypatch: pytest.MonkeyPatch, module: object, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["script", *arguments])
    module.main()  # type: ignore[attr-defined]


def test_prompts_from_a_file_and_what_is_wrong_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "scorer.safetensors"
    untrained = AttributeScorer({name: len(values) for name, values in labels().items()})
    save_state_dict(untrained.state_dict(), weights, {"labels": json.dumps(labels())})
    item = combinations()[0]
    pixels = ((render([item])[0] + 1) * 127.5).round().astype(np.uint8)
    folder, listing = tmp_path / "pictures", tmp_path / "prompts.txt"
    save_image(Image.fromarray(pixels), folder / "a.png")
    listing.write_text(caption(item) + "\n")
    run(monkeypatch, score, str(folder), "--prompts", str(listing), "--ckpt", str(weights))
    with pytest.raises(UserError, match=r"a\.png' carries no prompt .* --prompts"):
        run(monkeypatch, score, str(folder))
    with pytest.raises(UserError, match="cannot read the prompt file"):
        run(monkeypatch, score, str(folder), "--prompts", str(tmp_path / "none.txt"))
    listing.write_text("a cat\n")
    with pytest.raises(UserError, match="'a cat' is not a caption"):
        run(monkeypatch, score, str(folder), "--prompts", str(listing), "--ckpt", str(weights))
    listing.write_text("a\nb\n")
    with pytest.raises(UserError, match="holds 1 pictures, but there are 2 prompts"):
        run(monkeypatch, score, str(folder), "--prompts", str(listing))


def test_weights_of_another_world_are_refused(tmp_path: Path) -> None:
    model = AttributeScorer({"shape": 3})
    save_state_dict(model.state_dict(), tmp_path / "s.safetensors", {"labels": json.dumps({"shape": ["a", "b", "c"]})})
    with pytest.raises(UserError, match="trained on another world"):
        score.load_scorer(tmp_path / "s.safetensors")


def test_a_short_training_learns_and_saves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = AttributeScorer({name: len(values) for name, values in labels().items()})
    untrained = compare(*train_scorer.trial(model, "heldout", 0.0, 100, 1))
    out = tmp_path / "scorer.safetensors"
    run(monkeypatch, train_scorer, "--steps", "25", "--batch_size", "32", "--trials", "100", "--out", str(out))
    trained = compare(*train_scorer.trial(score.load_scorer(out), "heldout", 0.0, 100, 1))
    share = {row.attribute: row.share for row in trained}
    assert share["background"] > 0.6 > next(r.share for r in untrained if r.attribute == "background")
    assert json.loads(out.with_suffix(".json").read_text())["steps"] == 25


def test_world_prompts_are_captions_of_the_split(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, world_prompts, "-n", "432", "--language", "mixed")
    lines = capsys.readouterr().out.splitlines()
    assert {parse(line) for line in lines} == set(combinations("heldout"))
    with pytest.raises(UserError, match="no split 'other'"):
        run(monkeypatch, world_prompts, "--split", "other")

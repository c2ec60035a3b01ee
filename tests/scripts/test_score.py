"""The scorer, from the commands a person runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from ldm.checkpoint import save_state_dict
from ldm.modules.scorer import AttributeScorer
from ldm.pictures.images import save_image, tensor_to_image
from ldm.util import UserError
from ldm.world.labels import ASTRAY, classes
from ldm.world.paint import paint
from ldm.world.scene import Scene, Thing
from ldm.world.scene_files import write_scenes
from ldm.world.scoring import rows_of
from scripts import score, train_scorer


def run(monkeypatch: pytest.MonkeyPatch, module: object, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["script", *arguments])
    module.main()  # type: ignore[attr-defined]


def test_what_is_wrong_with_scenes_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "scorer.safetensors"
    save_state_dict(score.new_scorer().state_dict(), weights, {"labels": json.dumps(classes())})
    scene = Scene("blue", (Thing("cat", "large", "middle"),))
    folder, listing = tmp_path / "pictures", tmp_path / "scenes.jsonl"
    save_image(tensor_to_image(torch.from_numpy(paint([scene], 64)[0]).movedim(-1, 0)), folder / "a.png")
    write_scenes(listing, [scene])
    run(monkeypatch, score, str(folder), "--scenes", str(listing), "--ckpt", str(weights))
    with pytest.raises(UserError, match="cannot read the file of scenes"):
        run(monkeypatch, score, str(folder), "--scenes", str(tmp_path / "none.jsonl"))
    write_scenes(listing, [scene, scene])
    with pytest.raises(UserError, match="holds 1 pictures, but there are 2 scenes"):
        run(monkeypatch, score, str(folder), "--scenes", str(listing))


def test_weights_of_another_world_are_refused(tmp_path: Path) -> None:
    model = AttributeScorer({"shape": 3})
    save_state_dict(model.state_dict(), tmp_path / "s.safetensors", {"labels": json.dumps({"shape": ["a", "b", "c"]})})
    with pytest.raises(UserError, match="trained on another world"):
        score.load_scorer(tmp_path / "s.safetensors")


def test_a_short_training_learns_and_saves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    tried = train_scorer.world_of("heldout", 100, 1, 64)
    untrained = rows_of(*train_scorer.trial(score.new_scorer(), tried, 0.0, 1))
    out = tmp_path / "scorer.safetensors"
    run(monkeypatch, train_scorer, "--steps", "16", "--batch_size", "32", "--trials", "64", "--num_workers", "0",
        "--drawn_at", "64", "--out", str(out))  # fmt: skip
    trained = rows_of(*train_scorer.trial(score.load_scorer(out), tried, 0.0, 1))
    share = {row.attribute: row.share for row in trained}
    assert share["background"] > 0.25 > 2 * next(r.share for r in untrained if r.attribute == "background")
    assert json.loads(out.with_suffix(".json").read_text())["steps"] == 16


def test_things_are_moved_near_their_places_or_astray() -> None:
    scene = Scene("white", (Thing("circle", "small", "middle", "black", "plain"),))
    pictures = torch.from_numpy(paint([scene] * 64, 64)).permute(0, 3, 1, 2)
    far = torch.arange(64) % 2 == 0
    moved = train_scorer.moved(pictures, far, torch.Generator().manual_seed(0))
    dark = (moved[:, 0] < 0).float()
    axis = torch.arange(64.0)
    middles = torch.stack([(dark.sum(2) * axis).sum(1), (dark.sum(1) * axis).sum(1)], 1) / dark.sum((1, 2))[:, None]
    distance = (middles - 31.5).abs().amax(1)
    assert (distance[far] > 5.5).all() and (distance[~far] < 2.5).all()
    targets = train_scorer.targets_of([scene] * 2, torch.tensor([True, False]))
    layouts = classes()["layout"]
    assert [layouts[int(i)] for i in targets["layout"]] == [ASTRAY, "small middle"]

"""The scorer that the repository carries."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ldm.pictures.images import save_image, tensor_to_image
from ldm.world.degrade import degrade
from ldm.world.paint import paint
from ldm.world.photos import BundledPhotos
from ldm.world.scene import Scene
from ldm.world.scene_files import write_scenes
from ldm.world.scenes import SceneWorld
from ldm.world.scoring import rows_of
from scripts import score


def renders(n: int, size: int, seed: int) -> tuple[torch.Tensor, list[Scene]]:
    world = SceneWorld("heldout", size, length=n, seed=seed, figures=0.0, shapes=0.3, two=0.3)
    scenes = [scene for scene in world.contents(range(n)) if isinstance(scene, Scene)]
    return torch.from_numpy(paint(scenes, size)).permute(0, 3, 1, 2).contiguous(), scenes


def test_the_shipped_scorer_is_right_on_true_renders_that_it_never_saw() -> None:
    model = score.load_scorer()
    pictures, scenes = renders(400, 128, seed=99)
    for row in rows_of(scenes, score.see(model, pictures)):
        assert row.share > (0.985 if row.attribute == "all" else 0.99), row
    pictures, scenes = renders(400, 64, seed=98)
    disturbed = degrade(pictures, torch.Generator().manual_seed(5))
    for row in rows_of(scenes, score.see(model, disturbed)):
        assert row.share > (0.85 if row.attribute == "all" else 0.93), row


def test_it_is_unsure_about_photographs() -> None:
    model = score.load_scorer()
    photos = BundledPhotos("heldout", 64, length=60)
    strange = torch.from_numpy(np.stack([photos[i]["image"] for i in range(60)])).permute(0, 3, 1, 2)
    known, _ = renders(60, 64, seed=97)
    surest = [[min(p for _, p in one.values()) for one in score.see(model, batch)] for batch in (strange, known)]
    assert np.mean(surest[0]) < 0.6 < 0.9 < np.mean(surest[1])


def test_planted_faults_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another picture, one moved by a tenth of its width, and one that is too dark, among right ones."""
    pictures, scenes = renders(10, 128, seed=5)
    pictures[3] = pictures[3] * 0.75 - 0.25
    pictures[0] = pictures[7]
    pictures[1] = torch.nn.functional.pad(pictures[1:2], (13, 0, 0, 0), mode="replicate")[0, :, :, :128]
    for number, picture in enumerate(pictures):
        save_image(tensor_to_image(picture), tmp_path / "pictures" / f"{number}.png")
    write_scenes(tmp_path / "scenes.jsonl", scenes)
    monkeypatch.setattr(sys, "argv", ["score", str(tmp_path / "pictures"), "--scenes", str(tmp_path / "scenes.jsonl"),
                                      "--json", str(tmp_path / "report.json")])  # fmt: skip
    score.main()
    assert "background" in capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text())
    assert {m["picture"] for m in report["mistakes"]} == {"0.png", "1.png"}
    assert report["scores"]["all"]["right"] == 8 and len(report["pictures"]) == 10
    assert report["scores"]["all, shades"]["right"] == 7  # all of which it names rightly, but one is too dark
    assert not report["pictures"][3]["shade"] and all(one["shade"] for one in report["pictures"][4:])

"""The scorer that the repository carries."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.pictures.images import save_image
from ldm.world.attributes import combinations
from ldm.world.captions import caption, parse
from ldm.world.degrade import degrade
from ldm.world.photos import BundledPhotos
from ldm.world.render import render
from ldm.world.scoring import compare
from ldm.world.shapes import ShapesWorld
from scripts import score


def run(monkeypatch: pytest.MonkeyPatch, module: object, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["script", *arguments])
    module.main()  # type: ignore[attr-defined]


def tensors(n: int, seed: int) -> tuple[torch.Tensor, list[str]]:
    world = ShapesWorld("heldout", length=n, seed=seed, jitter=0.03)
    items = world.__getitems__(range(n))
    return torch.from_numpy(np.stack([i["image"] for i in items])).permute(0, 3, 1, 2), [i["caption"] for i in items]


def test_the_shipped_scorer_is_right_on_unseen_disturbed_renders() -> None:
    pictures, captions = tensors(1200, seed=99)
    model = score.load_scorer()
    disturbed = degrade(pictures.contiguous(), torch.Generator().manual_seed(5))
    for batch, limit in ((pictures, 0.995), (disturbed, 0.985)):
        rows = compare([parse(text) for text in captions], score.see(model, batch))
        assert all(row.share > limit for row in rows if row.attribute != "all"), rows


def test_the_scorer_works_at_other_sizes_and_is_unsure_about_photographs() -> None:
    model = score.load_scorer()
    items = combinations("heldout")[::9]
    big = torch.from_numpy(render(items, 160)).permute(0, 3, 1, 2)
    rows = compare(items, score.see(model, big))
    assert rows[-1].share > 0.97
    photos = BundledPhotos("heldout", 64, length=60)
    strange = torch.from_numpy(np.stack([photos[i]["image"] for i in range(60)])).permute(0, 3, 1, 2)
    surest = [min(p for _, p in judgement.values()) for judgement in score.see(model, strange)]
    known = [min(p for _, p in judgement.values()) for judgement in score.see(model, big)]
    assert np.mean(surest) < 0.7 < 0.95 < np.mean(known)


def test_a_wrong_picture_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    items = combinations("heldout")[::50]
    languages = ("en", "ko", "zh")
    for number, item in enumerate(items):
        drawn = items[1] if number == 0 else item  # the first picture shows something else
        pixels = ((render([drawn])[0] + 1) * 127.5).round().astype(np.uint8)
        text = caption(item, languages[number % 3], number)
        save_image(Image.fromarray(pixels), tmp_path / f"{number}.png", {"prompt": text})
    run(monkeypatch, score, str(tmp_path), "--json", str(tmp_path / "out" / "report.json"))
    printed = capsys.readouterr().out
    assert "shape" in printed and "all" in printed
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["scores"]["all"]["right"] == len(items) - 1
    assert {m["picture"] for m in report["mistakes"]} == {"0.png"}
    assert len(report["pictures"]) == len(items)

"""The commands around the judge: sentences with scenes, and the table of a folder of pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ldm.pictures.images import save_image, tensor_to_image
from ldm.util import UserError
from ldm.world.paint import paint
from ldm.world.scene import Scene, Thing
from ldm.world.scene_files import read_scenes, write_scenes
from ldm.world.scenes import SceneWorld
from scripts.judge import report
from scripts.scene_prompts import prompts
from tests import forked
from tests.helpers import ROOT


def test_sentences_and_what_they_ask_for() -> None:
    texts, wanted = prompts(40, "all", seed=3)
    contents = SceneWorld("heldout", length=40, seed=3, figures=0.0).contents(range(40))
    for text, scene, content in zip(texts, wanted, contents, strict=True):
        assert isinstance(content, Scene) and scene.ground == content.ground and content.held_out
        assert [t.name for t in scene.things] == [t.name for t in content.things] and text
    free, loose = prompts(200, "two", language="ko", free=True)
    assert len({*free}) > 190 and any(scene.ground is None for scene in loose)
    assert {len(scene.things) for scene in loose} == {2} and any(s.things[0].place is None for s in loose)
    _, even = prompts(400, "even", seed=3)
    assert 0.4 < np.mean([len(s.things) == 2 for s in even]) < 0.6
    assert 0.4 < np.mean([thing.is_shape for s in even for thing in s.things]) < 0.6
    with pytest.raises(UserError, match="things are one, shapes, two, all, single, even, outlined, not 'three'"):
        prompts(3, "three")
    with pytest.raises(UserError, match="at least 1"):
        prompts(0)


def test_scenes_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "scenes.jsonl"
    pair = Scene(None, (Thing("star", "small", None, "red"), Thing("dog")))
    scenes = [Scene("blue", (Thing("cat", place="left"),)), pair]
    write_scenes(path, scenes)
    assert read_scenes(path) == scenes
    path.write_text('{"ground": "blue", "things": [{"name": "cat"}]}\n\n{"ground": "blue"}\n')
    with pytest.raises(UserError, match=r"line 3 of .* is no scene"):
        read_scenes(path)
    path.write_text('{"ground": "plaid", "things": [{"name": "cat"}]}\n')
    with pytest.raises(UserError, match=r"line 1 of .*: the world has no background 'plaid'"):
        read_scenes(path)
    with pytest.raises(UserError, match="cannot read the file of scenes"):
        read_scenes(tmp_path / "none.jsonl")


@pytest.mark.parametrize("language", ["en", "ko", "zh"])
def test_each_sentence_of_another_author_has_its_scene(language: str) -> None:
    sentences = (ROOT / f"benchmarks/sentences/{language}.txt").read_text(encoding="utf-8").splitlines()
    scenes = read_scenes(ROOT / f"benchmarks/sentences/{language}.jsonl")
    assert len(set(sentences)) == len(scenes) == 60 and all(scene.things for scene in scenes)


def test_the_command_judges_a_folder(tmp_path: Path) -> None:
    texts, wanted = prompts(6, "one", seed=5)
    contents = SceneWorld("heldout", length=6, seed=5, figures=0.0, shapes=0.0, two=0.0).contents(range(6))
    pictures = paint(contents, 64)  # type: ignore[arg-type]
    (tmp_path / "pictures").mkdir()
    for number, picture in enumerate(pictures):
        image = tensor_to_image(torch.from_numpy(picture if number else -picture).movedim(-1, 0))
        save_image(image, tmp_path / "pictures" / f"{number}.png")
    write_scenes(tmp_path / "scenes.jsonl", wanted)
    result = forked.run("-m", "scripts.judge", tmp_path / "pictures", "--scenes", tmp_path / "scenes.jsonl",
                        "--json", tmp_path / "out.json")  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "right            5 of     6   83.33%" in result.stdout and "seams:" in result.stdout
    written = json.loads((tmp_path / "out.json").read_text())
    assert [p["picture"] for p in written["pictures"]] == [f"{i}.png" for i in range(6)] and len(texts) == 6
    assert written["shares"]["right"]["right"] == 5 and not written["pictures"][0]["things"]
    with pytest.raises(UserError, match="2 pictures need as many scenes, got 1"):
        report(list(pictures[:2]), wanted[:1])

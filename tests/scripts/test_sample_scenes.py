"""Scenes drawn by the shipped model, with what they should have been; and that a stopped run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ldm.util import UserError
from ldm.workflows.studio import Studio, open_studio
from ldm.world.drawn import DrawnScenes
from ldm.world.paint import paint
from ldm.world.scene import Scene, Thing
from scripts import sample_scenes as command
from scripts.scene_prompts import prompts


@pytest.fixture(scope="module")
def studio() -> Studio:
    return open_studio()


@pytest.fixture(scope="module")
def folder(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    assert command.sample_scenes(studio, folder, 6, seed=901, steps=6) >= 4
    return folder


def test_latents_decode_to_nearly_what_was_asked_for(studio: Studio, folder: Path) -> None:
    world = DrawnScenes(str(folder))
    wanted = prompts(6, split="train", seed=901)[1]
    assert {thing.name for scene in world.scenes for thing in scene.things} <= {
        thing.name for scene in wanted for thing in scene.things
    }
    for item in world.__getitems__(range(len(world.scenes))):
        with torch.no_grad():
            decoded = studio.model.decode_first_stage(torch.from_numpy(item["drawn"])[None])[0]
        assert np.abs(decoded.permute(1, 2, 0).numpy() - item["image"]).mean() < 0.15


def test_a_stopped_run_goes_on_where_it_stopped(
    studio: Studio, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "PORTION", 3)
    whole = command.draw_latents
    asked: list[int] = []

    def interrupted(studio: Any, plan: Any, texts: Any, seeds: Any) -> Any:
        if seeds[0] > 903 and not asked:
            asked.append(seeds[0])
            raise KeyboardInterrupt
        return whole(studio, plan, texts, seeds)

    monkeypatch.setattr(command, "draw_latents", interrupted)
    with pytest.raises(KeyboardInterrupt):
        command.sample_scenes(studio, tmp_path, 6, seed=901, steps=6)
    first = (tmp_path / "0000.npy").stat().st_mtime_ns
    kept = command.sample_scenes(studio, tmp_path, 6, seed=901, steps=6)
    assert (tmp_path / "0000.npy").stat().st_mtime_ns == first, "not drawn again"
    there, here = DrawnScenes(str(tmp_path)), DrawnScenes(str(folder))
    assert there.scenes == here.scenes and kept == len(here.scenes)
    np.testing.assert_allclose(there.latents, here.latents, atol=0.02)
    (tmp_path / "0001.npy").unlink()
    assert command.sample_scenes(studio, tmp_path, 6, seed=901, steps=6) == kept
    np.testing.assert_allclose(DrawnScenes(str(tmp_path)).latents, here.latents, atol=0.02)


def test_what_is_asked_for_can_be_chosen(studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    whole = command.draw_latents

    def noted(studio: Any, plan: Any, texts: Any, seeds: Any) -> Any:
        asked.extend(texts)
        return whole(studio, plan, texts, seeds)

    monkeypatch.setattr(command, "shown_scenes", lambda pictures, wanted, everything: list(wanted))
    monkeypatch.setattr(command, "draw_latents", noted)
    command.sample_scenes(studio, tmp_path, 4, seed=901, steps=1, things="two")
    assert asked == prompts(4, "two", split="train", seed=901)[0]
    assert all(len(scene.things) == 2 for scene in DrawnScenes(str(tmp_path)).scenes)
    with pytest.raises(UserError, match="holds scenes of another"):
        command.sample_scenes(studio, tmp_path, 4, seed=901, steps=1)


def test_a_portion_of_which_nothing_is_shown_is_done_all_the_same(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "shown_scenes", lambda pictures, wanted, everything: [None] * len(wanted))
    assert command.sample_scenes(studio, tmp_path, 2, seed=901, steps=2) == 0
    monkeypatch.setattr(command, "draw_latents", None)
    assert command.sample_scenes(studio, tmp_path, 2, seed=901, steps=2) == 0
    with pytest.raises(UserError, match="has no drawn scenes"):
        DrawnScenes(str(tmp_path))


def test_another_run_does_not_go_on_in_the_folder(studio: Studio, folder: Path) -> None:
    with pytest.raises(UserError, match="another model, seed or settings"):
        command.sample_scenes(studio, folder, 6, seed=902, steps=6)
    with pytest.raises(UserError, match="another model, seed or settings"):
        command.sample_scenes(studio, folder, 6, seed=901, steps=7)


def test_bad_numbers_leave_no_folder(studio: Studio, tmp_path: Path) -> None:
    for count, seed, steps in ((0, 1, 6), (2, 2**64, 6), (2, 1, 0)):
        with pytest.raises(UserError):
            command.sample_scenes(studio, tmp_path / "drawn", count, seed=seed, steps=steps)
    assert not (tmp_path / "drawn").exists()


def test_only_what_is_shown_is_kept() -> None:
    scenes = [Scene("blue", (Thing("cat", "small", "left"),)), Scene("snow", (Thing("bus", "large", "middle"),))]
    pictures = torch.from_numpy(paint(scenes, 64)).permute(0, 3, 1, 2)
    assert command.shown_scenes(pictures, scenes) == scenes
    assert command.shown_scenes(pictures.flip(0), scenes) == [None, None]
    paler = (pictures * 0.85 + 0.1).clamp(-1, 1)
    assert command.shown_scenes(paler, scenes) == scenes, "shades may be off by a little"
    open_wish = [Scene("blue", (Thing("cat", None, "left"),)), Scene("snow", (Thing("bus"),))]
    assert command.shown_scenes(pictures, open_wish) == scenes, "what is left open is as the picture has it"


def test_everything_before_the_right_background_can_be_kept() -> None:
    """What was asked for stays what should have been drawn, and another background is another picture."""
    wanted = [Scene("blue", (Thing("cat", "small", "left"),)), Scene("snow", (Thing("bus", "large", "middle"),))]
    painted = [Scene("blue", (Thing("dog", "small", "top"),)), Scene("red", (Thing("bus", "large", "middle"),))]
    pictures = torch.from_numpy(paint(painted, 64)).permute(0, 3, 1, 2)
    assert command.shown_scenes(pictures, wanted) == [None, None]
    assert command.shown_scenes(pictures, wanted, everything=True) == [wanted[0], None]


def test_a_folder_of_everything_is_another(studio: Studio, folder: Path) -> None:
    with pytest.raises(UserError, match="another model, seed or settings"):
        command.sample_scenes(studio, folder, 6, seed=901, steps=6, everything=True)

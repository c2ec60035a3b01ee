"""Scenes as a model drew them: portions of a folder, and what is not one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ldm.util import UserError
from ldm.world.drawn import DrawnScenes, portions, write_drawn
from ldm.world.paint import paint
from ldm.world.scene import Scene, Thing

CAT = Scene("blue", (Thing("cat", "small", "left"),))
STAR = Scene("snow", (Thing("star", "large", "middle", "red", "plain"),))
LATENTS = np.random.default_rng(0).normal(size=(3, 4, 8, 8))


def test_latents_come_with_the_true_render_of_their_scene(tmp_path: Path) -> None:
    write_drawn(tmp_path, 0, LATENTS[:2], [CAT, STAR])
    write_drawn(tmp_path, 1, LATENTS[2:], [STAR])
    world = DrawnScenes(str(tmp_path), size=64, length=8)
    assert len(world) == 8
    for number, item in enumerate(world.__getitems__(range(8))):
        np.testing.assert_allclose(item["drawn"], LATENTS[number % 3], atol=2e-3)
        np.testing.assert_array_equal(item["image"], paint([[CAT, STAR, STAR][number % 3]], 64)[0])
        assert isinstance(item["caption"], str)
    assert world[2]["drawn"].dtype == np.float32
    with pytest.raises(IndexError):
        world[8]


def test_a_scene_comes_in_many_words_every_second_time_in_the_plainest(tmp_path: Path) -> None:
    write_drawn(tmp_path, 0, LATENTS[:1], [CAT])
    captions = [item["caption"] for item in DrawnScenes(str(tmp_path), size=64).__getitems__(range(60))]
    plain = captions.count("a cat on the left on a blue background")
    assert 18 <= plain <= 42 and len(set(captions)) > 15
    again = [DrawnScenes(str(tmp_path), size=64)[number]["caption"] for number in range(60)]
    other = [DrawnScenes(str(tmp_path), size=64, seed=1)[number]["caption"] for number in range(60)]
    assert again == captions != other


def test_a_portion_that_was_not_finished_is_not_there(tmp_path: Path) -> None:
    write_drawn(tmp_path, 0, LATENTS[:1], [CAT])
    write_drawn(tmp_path, 1, LATENTS[1:], [STAR, STAR])
    (tmp_path / "0001.jsonl").unlink()
    assert [path.name for path in portions(tmp_path)] == ["0000.jsonl"] and len(DrawnScenes(str(tmp_path)).scenes) == 1


def test_a_folder_that_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no drawn scenes: python -m scripts.sample_scenes"):
        DrawnScenes(str(tmp_path))
    write_drawn(tmp_path, 0, LATENTS, [CAT, STAR])
    with pytest.raises(UserError, match=r"0000.npy' has no latent \[C, h, w\] for each scene of '0000.jsonl'"):
        DrawnScenes(str(tmp_path))
    np.save(tmp_path / "0000.npy", np.array(["a"], object), allow_pickle=True)
    with pytest.raises(UserError, match="file of latents"):
        DrawnScenes(str(tmp_path))
    write_drawn(tmp_path, 0, LATENTS[:2], [CAT, STAR])
    write_drawn(tmp_path, 1, LATENTS[:1, :, :4, :4], [CAT])
    with pytest.raises(UserError, match=r"0001.npy' has latents of another shape"):
        DrawnScenes(str(tmp_path))
    with pytest.raises(UserError, match="multiple of 16"):
        DrawnScenes(str(tmp_path), size=60)
    with pytest.raises(UserError, match="length >= 1"):
        DrawnScenes(str(tmp_path), length=0)

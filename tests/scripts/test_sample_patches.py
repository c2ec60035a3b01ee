"""Patches of what the shipped model draws, kept beside the true ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ldm.data.drawn_patches import PatchPictures
from ldm.util import UserError
from ldm.workflows.correcting import correction_for
from ldm.workflows.studio import Studio, open_studio
from ldm.world.judge import judge
from ldm.world.paint import paint
from scripts import sample_errors
from scripts import sample_patches as command

SCENES = 4


@pytest.fixture(scope="module")
def studio() -> Studio:
    return open_studio()


def test_what_is_kept_is_drawn_of_corrected_latents_and_what_is_true(studio: Studio) -> None:
    correction = correction_for(studio)
    assert correction is not None
    drawing = command.Drawing(studio, 128, 25, correction.corrector)
    scenes = sample_errors.scenes_of(sample_errors.world_of(128, SCENES, seed=13), range(SCENES))
    kept = drawing.kept(scenes, seed=5)
    shown = [scene for scene, far in zip(scenes, drawing.asked(scenes, 5)[2], strict=True) if far < sample_errors.LOST]
    assert 0 < len(kept) == len(shown)
    assert np.array_equal(kept["near"], [sample_errors.near_things(scene, 128) for scene in shown])
    drawn, true = (kept[name] / 127.5 - 1 for name in ("drawn", "true"))
    with torch.no_grad():
        again = studio.model.decode_first_stage(torch.from_numpy(kept["latent"]).float()).clamp(-1, 1)
    assert np.abs(drawn - again.numpy()).max() < 0.03
    pictures = paint(shown, 128).transpose(0, 3, 1, 2)
    assert np.abs(true - pictures).max() <= 1 / 255 + 1e-6
    verdicts = [judge(picture, scene) for picture, scene in zip(drawn.transpose(0, 2, 3, 1), shown, strict=True)]
    assert np.mean([one.ground_error for one in verdicts]) < 3, "they are pictures of these scenes"


def test_they_are_kept_and_other_settings_are_refused(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_errors, "PORTION", 2)
    monkeypatch.setattr(sample_errors, "AT_ONCE", 2)
    kept = command.sample_patches(studio, tmp_path, SCENES, seed=13)
    assert len(list(tmp_path.glob("*.npy"))) == 2 and 0 < kept <= SCENES
    item = PatchPictures(str(tmp_path), patches=64, length=1)[0]
    assert item["around"].shape == (64, 384)
    assert 0 < np.abs(item["drawn"].astype(float) - item["true"]).mean() < 12
    with pytest.raises(UserError, match="another model, seed or settings"):
        command.sample_patches(studio, tmp_path, SCENES, seed=14)
    with pytest.raises(UserError, match=r"corrected before, and 'bare' has no corrector"):
        command.sample_patches(Studio(studio.model, "bare", {}), tmp_path / "other", SCENES, seed=13)

"""Patches of what the shipped model draws, kept beside the true ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ldm.data.drawn_patches import PatchPictures
from ldm.modules.retoucher import from_pixel_patches, pixel_patches, surroundings
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


def test_rows_are_what_is_drawn_of_corrected_latents_and_what_is_true(studio: Studio) -> None:
    correction = correction_for(studio)
    assert correction is not None
    drawing = command.Drawing(studio, 128, 25, correction.corrector)
    scenes = sample_errors.scenes_of(sample_errors.world_of(128, SCENES, seed=13), range(SCENES))
    rows, lost = drawing.rows(scenes, seed=5)
    around, drawn, true = rows.split([384, 768, 768], dim=-1)
    inner = around.reshape(SCENES, 8, 8, 24, 4, 4)[..., 1:3, 1:3]
    latents = inner.permute(0, 3, 1, 4, 2, 5).reshape(SCENES, 24, 16, 16)
    assert torch.equal(surroundings(latents), around)
    with torch.no_grad():
        again = studio.model.decode_first_stage(latents).clamp(-1, 1)
    assert torch.allclose(from_pixel_patches(drawn, 128, 128, 16), again, atol=2e-2)
    pictures = torch.from_numpy(paint(scenes, 128)).permute(0, 3, 1, 2)
    assert torch.equal(pixel_patches(pictures, 16), true)
    verdicts = [
        judge(picture, scene)
        for picture, scene, far in zip(again.permute(0, 2, 3, 1).numpy(), scenes, lost, strict=True)
        if far < sample_errors.LOST
    ]
    assert verdicts and np.mean([one.ground_error for one in verdicts]) < 3, "they are pictures of these scenes"


def test_they_are_kept_and_other_settings_are_refused(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_errors, "PORTION", 2)
    monkeypatch.setattr(sample_errors, "AT_ONCE", 2)
    kept = command.sample_patches(studio, tmp_path, SCENES, seed=13)
    assert len(list(tmp_path.glob("*.npy"))) == 2 and kept > SCENES * 16
    item = PatchPictures(str(tmp_path), patches=64, length=1)[0]
    assert item["around"].shape == (64, 384)
    assert 0 < np.abs(item["drawn"] - item["true"]).mean() < 0.1
    with pytest.raises(UserError, match="another model, seed or settings"):
        command.sample_patches(studio, tmp_path, SCENES, seed=14)
    with pytest.raises(UserError, match=r"corrected before, and 'bare' has no corrector"):
        command.sample_patches(Studio(studio.model, "bare", {}), tmp_path / "other", SCENES, seed=13)

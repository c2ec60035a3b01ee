"""What the shipped model gets wrong in scenes, kept; that a stopped run goes on; and a corrector's file of a run."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ldm.arrays import read_array
from ldm.checkpoint import save_state_dict
from ldm.data.errors import METRIC, PatchErrors, portion
from ldm.modules.corrector import Corrector, patches_of
from ldm.util import UserError
from ldm.workflows.correcting import correction_for
from ldm.workflows.studio import Studio, open_studio
from ldm.world.scene import Scene, Thing
from ldm.world.scenes import SceneWorld
from scripts import export_corrector
from scripts import sample_errors as command

SCENES = 6


@pytest.fixture(scope="module")
def studio() -> Studio:
    return open_studio()


@pytest.fixture(scope="module")
def folder(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("errors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "PORTION", 4)
        patch.setattr(command, "AT_ONCE", 2)
        assert command.sample_errors(studio, folder, SCENES, seed=11) > SCENES * 16
    return folder


def test_errors_are_those_of_what_is_expected(studio: Studio, folder: Path) -> None:
    """A patch begins with the latent and what is expected of it; that without the error is the true latent's."""
    errors = PatchErrors(str(folder), patches=64, length=1)[0]
    expected = torch.from_numpy(errors["seen"][:, 96:192])
    asking = command.Asking(studio, 128, steps=25)
    world = SceneWorld("train", 128, length=SCENES, seed=11, two=command.TWO, figures=0.0)
    true = patches_of(asking.encoded(command.scenes_of(world, range(SCENES)))).flatten(0, 1)
    wanted = expected - torch.from_numpy(errors["error"])
    assert torch.cdist(wanted, true).amin(1).max() < 0.05
    assert 0.01 < float(np.square(errors["error"]).mean()) < 0.3


def test_shades_count_for_more_than_detail(folder: Path) -> None:
    metric = read_array(folder / METRIC).astype(float)
    assert np.allclose(metric, metric.T) and np.linalg.eigvalsh(metric).min() > 0
    assert np.diag(metric)[:3].min() > 4 * np.diag(metric)[3:].max(), "the first three of the patch transform are means"


def test_a_stopped_run_goes_on_and_other_settings_are_refused(
    studio: Studio, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "PORTION", 4)
    monkeypatch.setattr(command, "AT_ONCE", 2)
    before = {path.name: path.read_bytes() for path in folder.glob("*.npy")}
    portion(folder, 0).unlink()
    command.sample_errors(studio, folder, SCENES, seed=11, first=4)
    assert {path.name: path.read_bytes() for path in folder.glob("*.npy")} == before
    with pytest.raises(UserError, match="another model, seed or settings"):
        command.sample_errors(studio, folder, SCENES, seed=12)
    with pytest.raises(UserError, match="multiple of that, got 3"):
        command.sample_errors(studio, folder, SCENES, seed=11, first=3)


def test_patches_on_and_beside_things_are_kept() -> None:
    near = command.near_things(Scene("blue", (Thing("cat", "small", "top left"),)), 128)
    wanted = np.zeros((8, 8), bool)
    wanted[:5, :5] = True  # four patches a side, and one beside them
    assert np.array_equal(near, wanted)


def test_a_run_becomes_a_file_for_the_shipped_weights(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corrector = Corrector(1536, 24, width=8)
    run, out = tmp_path / "last.safetensors", tmp_path / "corrector.safetensors"
    save_state_dict({f"corrector.{name}": value for name, value in corrector.state_dict().items()}, run)
    monkeypatch.setattr(sys, "argv", ["export_corrector", str(run), str(out)])
    export_corrector.main()
    found = correction_for(Studio(studio.model, "tiny", {"corrector": str(out)}))
    assert found is not None
    before, after = corrector.state_dict(), found.corrector.state_dict()
    assert all(torch.allclose(after[name], before[name], rtol=1e-2, atol=2e-3) for name in before)

"""Files of Stable Diffusion XL find their configuration alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ldm.checkpoint.fit import match_conditioner
from ldm.targets import why_missing
from ldm.util import UserError
from ldm.workflows.files import find_model
from ldm.workflows.recognised import V_PREDICTION, V_SCALING, VECTOR, path_for, recognised
from tests.helpers import GOLDEN, ROOT


@pytest.mark.parametrize(
    ("listing", "name", "config"),
    [
        ("sdxl_base_1.0", "sd_xl_base_1.0.safetensors", "configs/sdxl/sd_xl_base.yaml"),
        ("sdxl_base_1.0", "somebodys-fine-tune.safetensors", "configs/sdxl/sd_xl_base.yaml"),
        ("sdxl_base_1.0", "sd_xl_turbo_1.0_fp16.safetensors", "configs/sdxl/sd_xl_turbo.yaml"),
        ("sdxl_refiner_1.0", "sd_xl_refiner_1.0.safetensors", "configs/sdxl/sd_xl_refiner.yaml"),
        ("sd_v1", "v1-5.safetensors", None),
        ("sd_v2", "v2-1.safetensors", None),
    ],
)
def test_shapes_say_which_model_it_is(listing: str, name: str, config: str | None) -> None:
    keys = json.loads((GOLDEN / "keys" / f"{listing}.json").read_text())["keys"]
    weights = {key: torch.empty(shape, device="meta") for key, shape in keys.items()}
    assert path_for(weights, name) == config
    assert config is None or (ROOT / config).is_file()


def file_with(folder: Path, name: str, **more: torch.Tensor) -> Path:
    """A file with the one matrix that tells, in half precision as the web has them."""
    save_file({VECTOR: torch.zeros(2, 2816, dtype=torch.float16), **more}, folder / name)
    return folder / name


def test_a_file_without_a_yaml_is_opened_with_the_projects_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ckpt, document = find_model(file_with(tmp_path, "a.safetensors"), None)
    assert ckpt.name == "a.safetensors" and document.inference.width == 1024
    assert document.model.target == "ldm.models.diffusion.ddpm.DiffusionEngine"


def test_a_file_that_is_marked_as_predicting_v_is_read_so(tmp_path: Path) -> None:
    document = recognised(file_with(tmp_path, "v.safetensors", **{V_PREDICTION: torch.empty(0)}))
    assert document is not None
    assert document.model.params.denoiser_config.params.scaling_config.target == V_SCALING


def test_other_files_still_need_their_yaml(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="needs its configuration"):
        find_model(tmp_path / "other.safetensors", None)


def test_a_file_of_one_encoder_serves_a_conditioner() -> None:
    given = {"cond_stage_model.model.ln": torch.zeros(1), "model.x": torch.zeros(1)}
    expected: dict[str, Any] = {"conditioner.embedders.0.model.ln": torch.zeros(1), "model.x": torch.zeros(1)}
    assert match_conditioner(given, expected).keys() == expected.keys()
    assert match_conditioner(given, {"cond_stage_model.model.ln": torch.zeros(1)}).keys() == given.keys()
    assert match_conditioner({**given, **expected}, expected).keys() == {**given, **expected}.keys()


@pytest.mark.parametrize(
    "target",
    ["sgm.data.dataset.StableDataModuleFromConfig", "sgm.data.mnist.MNISTLoader", "sdata.mappers.Rescaler",
     "sgm.data.cifar10.CIFAR10Loader", "ldm.data.dataset.StableDataModuleFromConfig", "ldm.data.mnist.MNISTLoader"],
)  # fmt: skip
def test_data_of_the_released_configurations_is_declined_with_what_would_do(target: str) -> None:
    assert "take ldm.data" in (why_missing(target) or "")

"""The file that a training's checkpoint becomes: the mean of two models, and what has none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ldm.checkpoint import read_state_dict, save_state_dict
from ldm.util import UserError
from scripts.export_model import export


def written(path: Path, value: float, width: int = 4) -> Path:
    save_state_dict({"model.layer.weight": torch.full((width, width), value), "steps": torch.tensor(3)}, path)
    return path


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_mean_lies_half_way(precision: str, tmp_path: Path) -> None:
    one, other = written(tmp_path / "one.safetensors", 1.0), written(tmp_path / "other.safetensors", 2.0)
    target = tmp_path / "mean.safetensors"
    export(one, target, precision, mean_with=other)
    found = read_state_dict(target)
    assert torch.equal(found["model.layer.weight"].float(), torch.full((4, 4), 1.5))
    assert found["model.layer.weight"].dtype == (torch.float32 if precision == "fp32" else torch.bfloat16)
    assert found["steps"] == 3
    export(one, target, precision)
    assert torch.equal(read_state_dict(target)["model.layer.weight"].float(), torch.ones(4, 4))


def test_models_of_other_kinds_have_no_mean(tmp_path: Path) -> None:
    one, wide = written(tmp_path / "one.safetensors", 1.0), written(tmp_path / "wide.safetensors", 2.0, width=8)
    with pytest.raises(UserError, match="two models of the same kind"):
        export(one, tmp_path / "mean.safetensors", mean_with=wide)
    assert not (tmp_path / "mean.safetensors").exists()

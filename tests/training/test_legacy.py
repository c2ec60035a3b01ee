"""Settings written for Lightning 1 mean the same today."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from ldm.training.config import read_config
from ldm.training.legacy import translate_trainer
from ldm.training.options import parse
from ldm.util import UserError
from tests.helpers import ROOT


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"gpus": "0,"}, {"accelerator": "gpu", "devices": [0]}),
        ({"gpus": "1,3,"}, {"accelerator": "gpu", "devices": [1, 3]}),
        ({"gpus": 2}, {"accelerator": "gpu", "devices": 2}),
        ({"gpus": -1}, {"accelerator": "gpu", "devices": -1}),
        ({"gpus": 0}, {"accelerator": "gpu", "devices": [0]}),
        ({"gpus": "0"}, {"accelerator": "gpu", "devices": [0]}),
        ({"gpus": None}, {}),
        ({"gpus": "0,", "accelerator": "ddp"}, {"accelerator": "gpu", "devices": [0], "strategy": "ddp"}),
        ({"accelerator": "cpu", "devices": 2, "strategy": "ddp"},) * 2,
        ({"distributed_backend": "dp"}, {"strategy": "ddp"}),
        ({"precision": 16}, {"precision": "16-mixed"}),
        ({"precision": "bf16"}, {"precision": "bf16-mixed"}),
        ({"precision": "bf16-mixed"},) * 2,
        ({"benchmark": True, "max_images": 8, "terminate_on_nan": True}, {"benchmark": True}),
        ({"progress_bar_refresh_rate": 0}, {"enable_progress_bar": False}),
        ({"checkpoint_callback": False, "replace_sampler_ddp": False},
         {"enable_checkpointing": False, "use_distributed_sampler": False}),
    ],
)  # fmt: skip
def test_translation(old: dict[str, Any], new: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert translate_trainer(old) == new


def test_gpus_without_cuda_mean_the_cpu(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert translate_trainer({"gpus": "0,"}) == {"accelerator": "cpu", "devices": 1}
    assert "no CUDA device: training on the CPU" in caplog.text


def test_no_gpu_is_device_0_and_says_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    _, changes = parse(["--gpus", "0"])
    trainer: Any = OmegaConf.to_container(read_config([], changes).lightning.trainer)
    assert translate_trainer(trainer) == {"accelerator": "gpu", "devices": [0]}
    assert "gpus=0 is taken as '0,': device 0; --accelerator cpu (without gpus) trains on the CPU" in caplog.text


def test_a_device_named_on_purpose_wins_over_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    settings = {"accelerator": "cpu", "devices": 1}
    assert translate_trainer({**settings, "gpus": "0,"}) == settings
    assert translate_trainer({"gpus": "0,", **settings}) == settings


def test_an_unknown_key_is_named() -> None:
    with pytest.raises(UserError, match="no option 'max_stepps'"):
        translate_trainer({"max_stepps": 3})


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.name)
def test_every_yaml_s_trainer_section_is_understood(path: Any) -> None:
    section = OmegaConf.select(OmegaConf.load(path), "lightning.trainer")
    if section is not None:
        translate_trainer(dict(section))

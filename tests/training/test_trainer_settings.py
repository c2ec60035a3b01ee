"""Values for Lightning's Trainer, and of the parts beside it, of a wrong type: said before the model is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from ldm.building.values import misfit
from ldm.training import launch
from ldm.training.trainer_settings import trainer_settings
from ldm.util import ConfigError
from tests.training.test_launch import write

NO_MODEL = OmegaConf.create()


def settings_of(**trainer: Any) -> dict[str, Any]:
    return trainer_settings(NO_MODEL, OmegaConf.create({"trainer": trainer}))


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("max_steps", "abc", "is 'abc'; it must be a whole number"),
        ("max_steps", 1.5, "is '1.5'; it must be a whole number"),
        ("max_steps", True, "is 'True'; it must be a whole number"),
        ("max_epochs", "abc", "it must be a whole number or null"),
        ("log_every_n_steps", "abc", "it must be a whole number or null"),
        ("gradient_clip_val", [1], "it must be a whole number or a number or null"),
        ("limit_train_batches", "half", "it must be a whole number or a number or null"),
        ("benchmark", "abc", "it must be true or false or null"),
        ("detect_anomaly", "abc", "it must be true or false"),
        ("deterministic", "abc", "it must be true or false or warn or null"),
        ("accumulate_grad_batches", "abc", "it must be a whole number"),
        ("accumulate_grad_batches", -3, "must be a whole number from 1 on"),
        ("accumulate_grad_batches", {"first": 2}, "'first' must be a whole number from 0 on"),
        ("accumulate_grad_batches", {"0": "a"}, "'a' must be a whole number from 1 on"),
        ("gpus", "all", "is 'all', which means nothing there"),
        ("terminate_on_nan", "abc", "is 'abc', which means nothing there"),
        ("progress_bar_refresh_rate", "abc", "is 'abc', which means nothing there"),
    ],
)  # fmt: skip
def test_a_wrong_type_is_one_sentence(name: str, value: Any, wanted: str) -> None:
    with pytest.raises(ConfigError) as raised:
        settings_of(**{name: value})
    assert f"lightning.trainer.{name}" in str(raised.value) and wanted in str(raised.value)


@pytest.mark.parametrize("value", [5, "abc"])
@pytest.mark.parametrize("name", ["trainer", "callbacks", "modelcheckpoint", "logger"])
def test_a_part_that_is_no_mapping_is_one_sentence(name: str, value: Any, tmp_path: Path) -> None:
    changes = [f"lightning.{name}={value}", "-l", str(tmp_path / "logs")]
    with pytest.raises(ConfigError, match=f"lightning.{name} is '{value}'; it must be settings by name"):
        launch.main(["-t", "-b", write(tmp_path), *changes])
    assert not (tmp_path / "logs").exists()


def test_it_is_said_before_the_model_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "build_model", lambda config: pytest.fail("built"))
    with pytest.raises(ConfigError, match=r"lightning.trainer.max_steps is 'abc'"):
        launch.main(["-t", "-b", write(tmp_path), "lightning.trainer.max_steps=abc", "-l", str(tmp_path / "logs")])
    assert not (tmp_path / "logs").exists()


def test_the_order_of_a_union_says_nothing() -> None:
    """Python gives equal unions of typing one order, that of whichever was made first."""
    wanted = "a whole number or a number or null"
    assert misfit("half", float | int | None) == misfit("half", int | float | None) == wanted


def test_what_the_trainer_takes_stays_as_it_is() -> None:
    given = {"max_steps": 10, "gradient_clip_val": 1, "limit_train_batches": 0.5, "max_time": "00:01:00:00",
             "benchmark": False, "deterministic": "warn", "accelerator": "cpu"}  # fmt: skip
    assert settings_of(**given) == given
    assert settings_of(max_steps=1e5, check_val_every_n_epoch=None, accumulate_grad_batches={"0": 2}) == {
        "max_steps": 100_000, "check_val_every_n_epoch": None, "accumulate_grad_batches": {0: 2},
    }  # fmt: skip
    assert type(settings_of(max_steps=1e5)["max_steps"]) is int


def test_fewer_data_than_there_are_between_two_validations_is_one_sentence(tmp_path: Path) -> None:
    pictures = {"target": "tests.training.toy.ToyPictures"}
    data = {"target": "main.DataModuleFromConfig",
            "params": {"batch_size": 4, "num_workers": 0, "train": pictures, "validation": pictures}}  # fmt: skip
    changes = ["lightning.trainer.val_check_interval=500", "-l", str(tmp_path / "logs")]
    with pytest.raises(ConfigError, match=r"too few training data: .*val_check_interval.* \(500\)"):
        launch.main(["-t", "-b", write(tmp_path, data=data), *changes])

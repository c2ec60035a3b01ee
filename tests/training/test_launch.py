"""main.py from a command line to a run folder."""

from __future__ import annotations

import logging
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml
from omegaconf import OmegaConf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import main as command
from ldm.training import launch
from ldm.training.memory import change_memory
from ldm.training.options import parse
from ldm.training.run_folder import RunFolder
from ldm.training.trainer_settings import trainer_settings
from ldm.util import UserError

TOY = "tests.training.toy."


def write(folder: Path, **sections: Any) -> str:
    """A YAML of the toy model and data, with some sections changed."""
    config: dict[str, Any] = {
        "model": {
            "base_learning_rate": 1e-3,
            "target": TOY + "ToyModel",
            "params": {"personalization_config": {"params": {"placeholder_strings": ["@"]}}},
        },
        "data": {
            "target": "main.DataModuleFromConfig",
            "params": {"batch_size": 4, "num_workers": 0, "train": {"target": TOY + "ToyPictures"}},
        },
        "lightning": {"trainer": {"max_steps": 2, "log_every_n_steps": 1, "accelerator": "cpu",
                                  "enable_progress_bar": False, "enable_model_summary": False}},
    }  # fmt: skip
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump({**config, **sections}))
    return str(path)


def run(folder: Path, *arguments: str) -> Path:
    """Train into ``folder``; the run's own folder."""
    before = set(folder.glob("*_*"))
    launch.main(["-t", "-l", str(folder), *arguments])
    (made,) = set(folder.glob("*_*")) - before
    return made


def test_a_run_folder_holds_everything_and_can_be_trained_from_again(tmp_path: Path) -> None:
    flags = ["--placeholder_string", "*", "--init_word", "toy", "--data_root", "pictures"]
    first = run(tmp_path, "-b", write(tmp_path), "-n", "a", *flags)
    assert (first / "checkpoints/last.ckpt").is_file()
    assert list(first.glob("images/train/inputs_gs-000001_*.png"))
    assert (first / "metrics/version_0/metrics.csv").is_file()
    events = EventAccumulator(str(first / "metrics/version_0"))
    events.Reload()
    assert len(events.Scalars("train/loss")) == 2
    assert "train/inputs" in events.Tags()["images"]

    saved = sorted(first.glob("configs/*.yaml"))
    assert [path.name.split("-")[-1] for path in saved] == ["lightning.yaml", "project.yaml"]
    assert "'*'" in saved[1].read_text()
    config = yaml.safe_load(saved[1].read_text())
    assert config["model"]["params"]["personalization_config"]["params"] == {
        "placeholder_strings": ["*"], "initializer_words": ["toy"],
    }  # fmt: skip
    assert config["data"]["params"]["train"]["params"]["data_root"] == "pictures"
    second = run(tmp_path, "-b", *map(str, saved), "-n", "b")
    same = [torch.load(folder / "checkpoints/last.ckpt")["state_dict"] for folder in (first, second)]
    assert all(torch.equal(same[0][key], same[1][key]) for key in same[0])


def test_actual_resume_takes_weights_only(tmp_path: Path) -> None:
    first = run(tmp_path, "-b", write(tmp_path), "-n", "a")
    checkpoint = torch.load(first / "checkpoints/last.ckpt")
    torch.save({"state_dict": checkpoint["state_dict"]}, tmp_path / "weights.ckpt")
    start = ["-b", write(tmp_path), "--actual_resume", str(tmp_path / "weights.ckpt"), "model.base_learning_rate=0"]
    second = run(tmp_path, *start, "-n", "b")
    reached = torch.load(second / "checkpoints/last.ckpt")
    assert reached["global_step"] == 2
    for key, value in checkpoint["state_dict"].items():
        if key.startswith("net."):
            torch.testing.assert_close(reached["state_dict"][key], value)
    with pytest.raises(UserError, match="has no training state; start from it with --actual_resume"):
        run(tmp_path, "-r", str(tmp_path / "weights.ckpt"))


def test_the_test_set_is_run_unless_told_not_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    node = {"target": TOY + "ToyPictures"}
    data = {"target": "main.DataModuleFromConfig",
            "params": {"batch_size": 4, "num_workers": 0, "train": node, "test": node}}  # fmt: skip
    first = run(tmp_path, "-b", write(tmp_path, data=data), "-n", "a")
    assert "test/loss" in capsys.readouterr().out
    run(tmp_path, "-b", write(tmp_path, data=data), "-n", "b", "--no-test")
    assert "test/loss" not in capsys.readouterr().out
    launch.main(["-r", str(first)])
    assert "test/loss" in capsys.readouterr().out


@pytest.mark.parametrize(("scale", "rate"), [("true", 1e-3 * 2 * 3 * 4), ("false", 1e-3)])
def test_the_learning_rate_is_scaled_as_of_old(scale: str, rate: float) -> None:
    config = OmegaConf.create({"model": {"base_learning_rate": 1e-3}, "data": {"params": {"batch_size": 4}}})
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        accumulate_grad_batches=3,
        logger=False,
        enable_checkpointing=False,
    )
    assert launch.learning_rate(parse(["--scale_lr", scale])[0], config, trainer) == pytest.approx(rate)


def trainer_of(lightning: dict[str, Any], tmp_path: Path) -> Any:
    folder = RunFolder(tmp_path / "run", "now")
    config = OmegaConf.create({"model": {}, "data": {}})
    section = OmegaConf.create({**lightning, "trainer": {"accelerator": "cpu", **lightning.get("trainer", {})}})
    return launch.make_trainer(parse([])[0], folder, config, section, trainer_settings(config, section))


def test_an_old_lightning_section_works(tmp_path: Path) -> None:
    trainer = trainer_of(
        {
            "modelcheckpoint": {
                "target": "pytorch_lightning.callbacks.ModelCheckpoint",
                "params": {"monitor": "val/loss", "save_top_k": 3, "every_n_train_steps": 7, "period": 1},
            },
            "callbacks": {
                "image_logger": {"target": "main.ImageLogger", "params": {"batch_frequency": 5, "max_images": 2}},
                "steps": {
                    "target": "pytorch_lightning.callbacks.ModelCheckpoint",
                    "params": {"every_n_train_steps": 9, "save_top_k": -1, "save_weights_only": True},
                },
            },
            "logger": {"target": "pytorch_lightning.loggers.TestTubeLogger", "params": {"name": "testtube"}},
            "find_unused_parameters": True,
            "trainer": {"accumulate_grad_batches": {0: 2}, "terminate_on_nan": True, "benchmark": True, "gpus": "0,",
                        "strategy": "ddp", "devices": 2},
        },
        tmp_path,
    )  # fmt: skip
    images = next(c for c in trainer.callbacks if isinstance(c, command.ImageLogger))
    assert (images.batch_frequency, images.max_images) == (5, 2)
    last, first = sorted(trainer.checkpoint_callbacks, key=lambda c: c._every_n_train_steps, reverse=True)
    assert (first.monitor, first.save_top_k, first.save_last, first.dirpath) == (
        "val/loss", 3, True, str(tmp_path / "run/checkpoints"),
    )  # fmt: skip
    assert (last._every_n_train_steps, last.save_weights_only) == (9, True)
    assert [type(logger).__name__ for logger in trainer.loggers] == ["CSVLogger", "TensorBoardLogger"]
    assert trainer.strategy._ddp_kwargs["find_unused_parameters"] is True
    assert any(isinstance(c, pl.callbacks.GradientAccumulationScheduler) for c in trainer.callbacks)


@pytest.mark.parametrize(
    ("lightning", "message"),
    [
        ({"trainer": {"precision": "7"}}, "lightning.trainer.precision is '7'; it must be 64 or 32 or 16"),
        ({"trainer": {"devices": "two"}}, "lightning.trainer does not fit: "),
        ({"trainer": {"max_stepps": 7}}, "no option 'max_stepps'"),
        ({"modelcheckpoint": {"params": {"every": 7}}}, "'every'"),
        ({"callbacks": {"x": {"target": "main.Nothing"}}}, "main.Nothing"),
    ],
)
def test_a_wrong_lightning_section_is_one_sentence(lightning: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as error:
        trainer_of(lightning, tmp_path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_weights_that_are_not_there_are_missed_before_a_network_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "build_model", lambda config: pytest.fail("built"))
    weights = str(tmp_path / "sd-v1-4.ckpt")
    with pytest.raises(UserError, match=r"there is no file '.*sd-v1-4.ckpt'; 'python -m scripts.download sd-v1-4'"):
        launch.main(["-t", "-b", write(tmp_path), "--actual_resume", weights, "-l", str(tmp_path / "logs")])


def test_wandb_that_is_not_installed_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install wandb"):
        trainer_of({"logger": {"target": "pytorch_lightning.loggers.WandbLogger"}}, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-t"], "no configuration"),
        (["-b", "nowhere.yaml", "-t"], "there is no configuration file 'nowhere.yaml'"),
        (["-b", "YAML"], "nothing to do"),
        (["-b", "YAML", "-t", "model.target=ldm.nothing.Here"], "ldm.nothing"),
        (["-b", "YAML", "-t", "model.target=torch.nn.Identity"], "is no LightningModule"),
        (["-b", "YAML", "-t", "model.params.wrong=1"], "has no parameter 'wrong'"),
        (["-b", "NO DATA", "-t"], "no section 'data'"),
        (["-b", "YAML", "-t", "data.params.train.params.size=0"], "is empty"),
        (["-b", "YAML", "-t", "lightning.compile=unet"], "no submodule unet"),
        (["-b", "YAML", "-t", "model.base_learning_rate=high"], "model.base_learning_rate is 'high'"),
        (["-b", "YAML", "-t", "lightning.actual_resume=3"], "lightning.actual_resume is '3'; it must be a file"),
    ],
)
def test_bad_input_ends_with_one_sentence_and_exit_2_and_writes_nothing(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    config = write(tmp_path, **({"data": None} if "NO DATA" in arguments else {}))
    arguments = [config if text in ("YAML", "NO DATA") else text for text in arguments]
    monkeypatch.setattr(sys, "argv", ["main.py", *arguments, "-l", str(tmp_path / "logs")])
    with pytest.raises(SystemExit) as error:
        command.run()
    assert error.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in line
    assert not (tmp_path / "logs").exists()


class BrokenPictures(torch.utils.data.Dataset):
    """One of its items cannot be read."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, Any]:
        raise UserError(f"'{index}.png' is no picture")


@pytest.mark.parametrize("workers", [0, 1])
def test_what_goes_wrong_in_a_loader_process_is_one_sentence_too(workers: int, tmp_path: Path) -> None:
    changes = [
        f"data.params.train.target={BrokenPictures.__module__}.BrokenPictures",
        f"data.params.num_workers={workers}",
    ]
    with pytest.raises(UserError, match=r"^'\d.png' is no picture$"):
        run(tmp_path, "-b", write(tmp_path), *changes)


def test_channels_last_leaves_convolutions_over_frames() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv3d(4, 4, 3))
    change_memory(model, OmegaConf.create({"channels_last": True}))
    assert model.get_parameter("0.weight").is_contiguous(memory_format=torch.channels_last)
    assert model.get_parameter("1.weight").is_contiguous()


def test_channels_last_and_compile(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(self))
    model = nn.ModuleDict({"encoder": nn.Conv2d(8, 8, 3), "other": nn.Conv2d(8, 8, 3)})
    change_memory(model, OmegaConf.create({"channels_last": True, "compile": True}))
    weights = [model.get_parameter(f"{name}.weight") for name in model]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    assert compiled == [model["encoder"]]
    change_memory(model, OmegaConf.create({"compile": "other"}))
    assert compiled[1:] == [model["other"]]
    assert "compiling in the first step, which takes minutes; lightning.compile=false goes without" in caplog.text
    monkeypatch.setattr(shutil, "which", lambda name: None)
    change_memory(model, OmegaConf.create({"compile": True}))
    assert len(compiled) == 2 and "there is no compiler 'g++' here: lightning.compile is left out" in caplog.text


def test_pictures_in_files_are_what_the_model_drew(tmp_path: Path) -> None:
    first = run(tmp_path, "-b", write(tmp_path), "-n", "a", "lightning.callbacks.image_logger.params.max_images=2")
    (path,) = first.glob("images/train/inputs_gs-000001_*.png")
    assert Image.open(path).size[0] < 3 * 4 + 8, "two pictures of 4 pixels"

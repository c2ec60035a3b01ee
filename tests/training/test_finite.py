"""NaN and infinity in training: the run stops at that step, says where, and every file is of a good step."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ldm.checkpoint import read_state_dict
from ldm.training.finite import all_finite
from ldm.training.launch import main
from ldm.util import UserError, run_command
from tests.training.test_resume import run_folder, write_config
from tests.training.toy import ToyModel

TARGET = "tests.training.test_finite.Faulty"
BAD_BATCH = 5  # with two batches a step: in the third step


class Fault(nn.Module):
    """Hands on what it gets, until it is told otherwise."""

    on = False

    def forward(self, x: Tensor) -> Tensor:
        return x * float("nan") if self.on else x


class Faulty(ToyModel):
    """Goes wrong at a batch, in one of several ways."""

    def __init__(self, fault: str = "", **more: Any) -> None:
        super().__init__(**more)
        self.fault = fault
        self.culprit = Fault()
        self.net.insert(2, self.culprit)
        self.first = self.net.get_submodule("0")

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        bad = self.trainer.fit_loop.epoch_loop.total_batch_idx == BAD_BATCH
        self.culprit.on = bad and self.fault == "module"
        if bad and self.fault == "data":
            batch["image"][0, 0, 0, 0] = float("inf")
        if bad and self.fault == "weight":
            self.first.get_parameter("weight").data[0, 0, 0, 0] = float("nan")
        loss = super().training_step(batch, batch_idx)
        if bad and self.fault == "gradient":
            loss = loss + (self.first.get_parameter("bias") * 0).square().sum().sqrt()  # 0, with a slope of 0 / 0
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.fault == "update" and self.trainer.fit_loop.epoch_loop.total_batch_idx == BAD_BATCH:
            self.first.get_parameter("bias").data[1] = float("inf")


def train(folder: Path, fault: str, *changes: str) -> str:
    """The sentence that a run ends with; it saves a checkpoint after every step."""
    with pytest.raises(UserError) as caught:
        main([
            "-t", "-l", str(folder / "logs"), "-b", write_config(folder), f"model.target={TARGET}",
            f"model.params.fault={fault}", *changes,
        ])  # fmt: skip
    return str(caught.value)


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        ("module", "the loss is nan; the first value that is not finite comes out of 'net.2' (Fault)"),
        ("data", "the batch holds such values under 'image'"),
        ("weight", "the loss is nan; the weight 'net.0.weight' is not finite"),
        ("gradient", "the gradient of 'net.0.bias' is not finite"),
    ],
)
def test_the_run_stops_at_the_step_and_keeps_the_last_good_checkpoint(fault: str, where: str, tmp_path: Path) -> None:
    sentence = train(tmp_path, fault)
    last = run_folder(tmp_path) / "checkpoints" / "last.ckpt"
    assert sentence.startswith("training stopped at step 2: ") and where in sentence and str(last) in sentence
    kept = read_state_dict(last)
    assert all_finite(kept.values())
    assert {p.name for p in last.parent.iterdir()} == {"last.ckpt", *(f"epoch=000000-step={n:09}.ckpt" for n in (1, 2))}
    with_step_2 = read_state_dict(last.parent / "epoch=000000-step=000000002.ckpt")
    assert all(torch.equal(kept[key], with_step_2[key]) for key in kept)


@pytest.mark.parametrize("wish", [(), ("lightning.trainer.terminate_on_nan=true",), ("--terminate_on_nan", "false")])
def test_a_broken_weight_gets_into_no_checkpoint(wish: tuple[str, ...], tmp_path: Path) -> None:
    sentence = train(tmp_path, "update", *wish)
    assert sentence.startswith("training stopped at step 3: the weight 'net.0.bias' is not finite after the step")
    last = run_folder(tmp_path) / "checkpoints" / "last.ckpt"
    assert all_finite(read_state_dict(last).values())


def test_old_keys_are_obeyed(tmp_path: Path) -> None:
    every_step = "lightning.modelcheckpoint.params.every_n_train_steps"
    off = train(tmp_path, "module", "--terminate_on_nan", "false", f"{every_step}=4")
    assert "training stopped at step 4: the weight 'net.0.weight' is not finite" in off, "where it is to be saved"
    (tmp_path / "b").mkdir()
    on = train(tmp_path / "b", "update", "--terminate_on_nan", "true", f"{every_step}=100")
    assert on.startswith("training stopped at step 3: the weight 'net.0.bias'")
    assert "no checkpoint had been written" in on


def test_detect_anomaly_is_one_sentence_with_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["-t", "-l", str(tmp_path / "logs"), "-b", write_config(tmp_path), "--detect_anomaly", "true",
                 f"model.target={TARGET}", "model.params.fault=gradient"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["main.py", *arguments])
    with pytest.raises(SystemExit) as caught, pytest.warns(UserWarning, match="Error detected in"):
        run_command(main)
    error = capsys.readouterr().err
    assert caught.value.code == 2 and "Traceback (most" not in error
    assert error.splitlines()[-1].startswith("error: training stopped at step 2: Function '")


def test_all_finite_knows_numbers() -> None:
    good = [torch.tensor([1e30, -3e38]), torch.zeros(0), torch.tensor(3), torch.ones(2, dtype=torch.bfloat16)]
    assert all_finite(good) and all_finite([])
    assert not all_finite([*good, torch.tensor([1.0, float("nan")])])
    assert not all_finite([*good, torch.tensor([-float("inf")], dtype=torch.float16)])

"""A stopped run goes on with the losses, items, rates and weights of one that was never stopped."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
import yaml

from benchmarks.kills import be_command
from benchmarks.kills_commands import COMMANDS
from ldm.checkpoint import read_state_dict
from ldm.training import checkpoints
from ldm.training.launch import main
from ldm.util import UserError
from tests import forked
from tests.helpers import ROOT

CONFIG = """
model:
  base_learning_rate: 1.0e-3
  target: tests.training.toy.ToyModel
  params: {{log_file: "{log}"}}
data:
  target: main.DataModuleFromConfig
  params:
    batch_size: 4
    num_workers: 0
    train: {{target: tests.training.toy.ToyPictures}}
    validation: {{target: tests.training.toy.ToyPictures, params: {{size: 5}}}}
lightning:
  modelcheckpoint: {{params: {{every_n_train_steps: {every}, save_top_k: -1}}}}
  callbacks:
    image_logger: {{target: main.ImageLogger, params: {{batch_frequency: 2, max_images: 4}}}}
  trainer:
    {{accelerator: cpu, devices: 1, max_steps: {steps}, accumulate_grad_batches: 2, enable_progress_bar: false,
      log_every_n_steps: 1, enable_model_summary: false}}
"""
STEPS = 8  # of two batches each; an epoch has 6 batches, the last one smaller


def write_config(folder: Path, every: int = 1, steps: int = STEPS) -> str:
    path = folder / "toy.yaml"
    path.write_text(CONFIG.format(log=folder / "log", every=every, steps=steps))
    return str(path)


def history(folder: Path, rank: int = 0) -> list[dict[str, Any]]:
    lines = (folder / f"log.{rank}").read_text().splitlines()
    return [json.loads(line) for line in lines]


def run_folder(folder: Path) -> Path:
    (found,) = (folder / "logs").iterdir()
    return found


def train(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    """Train in this process; the log lines that this call has added."""
    log = folder / "log.0"
    before = len(history(folder)) if log.exists() else 0
    main(["-t", "-l", str(folder / "logs"), *arguments])
    return history(folder)[before:]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As in the processes that are started here: the sums of another number of threads differ in the last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A run without any interruption that keeps a checkpoint of every step."""
    folder = tmp_path_factory.mktemp("straight")
    return folder, train(folder, "-b", write_config(folder))


def test_a_run_without_interruption_is_what_it_should_be(straight: tuple[Path, list[dict[str, Any]]]) -> None:
    _, log = straight
    assert len(log) == 2 * STEPS
    first, second = [[item for line in log[i : i + 6] for item in line["items"]] for i in (0, 6)]
    assert sorted(first) == sorted(second) == list(range(22))
    assert first != second, "every epoch has an order of its own"
    assert len({line["loss"] for line in log}) == len(log)
    assert log[-1]["weights"] != log[0]["weights"]
    assert log[-1]["lr"] < max(line["lr"] for line in log), "the schedule is at work"


@pytest.mark.parametrize("step", range(1, STEPS))
def test_every_checkpoint_continues_exactly(straight: tuple[Path, list[dict[str, Any]]], step: int) -> None:
    folder, log = straight
    (checkpoint,) = run_folder(folder).glob(f"checkpoints/*step={step:09}.ckpt")
    assert train(folder, "-r", str(checkpoint), "-s", str(step)) == log[2 * step :], "a run keeps its own seed"


def test_the_end_of_a_run_is_kept_and_continues(straight: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    config = write_config(tmp_path, every=100, steps=3)
    first = train(tmp_path, "-b", config)
    rest = train(tmp_path, "-r", str(run_folder(tmp_path)), "--max_steps", str(STEPS))
    assert first + rest == straight[1]


def test_workers_and_pictures_change_nothing(straight: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    config = write_config(tmp_path)
    changes = ["data.params.num_workers=2", "lightning.callbacks.image_logger.params.disabled=true"]
    assert train(tmp_path, "-b", config, *changes, "--limit_val_batches", "0") == straight[1]


def test_another_seed_is_another_run(straight: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    log = train(tmp_path, "-b", write_config(tmp_path, steps=1), "-s", "24")
    assert log[0]["items"] != straight[1][0]["items"]


def test_validation_inside_an_epoch_changes_nothing(
    straight: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    often = ["--val_check_interval", "4", "--check_val_every_n_epoch", "null"]
    assert train(tmp_path, "-b", write_config(tmp_path), *often) == straight[1]
    for step in (2, 3, 6):  # right before a validation, between two, at the end of an epoch with one
        (checkpoint,) = run_folder(tmp_path).glob(f"checkpoints/*step={step:09}.ckpt")
        assert train(tmp_path, "-r", str(checkpoint)) == straight[1][2 * step :]


def test_a_latent_diffusion_model_continues_exactly(tmp_path: Path) -> None:
    """With everything that has a state or draws: averaged weights, a measured scale, dropped conditions, a schedule."""
    config = yaml.safe_load((ROOT / "tests/golden/ldm_full.yaml").read_text())
    schedule = {"warm_up_steps": [2], "f_min": [0.1], "f_max": [1.0], "f_start": [0.1], "cycle_lengths": [9]}
    config["model"]["params"] |= {
        "use_ema": True, "scale_by_std": True, "scale_factor": 1.0, "learn_logvar": True, "cond_stage_trainable": True,
        "ucg_training": {"caption": {"p": 0.5, "val": 0}},
        "scheduler_config": {"target": "ldm.lr_scheduler.LambdaLinearScheduler", "params": schedule},
    }  # fmt: skip
    node = {"target": "tests.training.toy.CountedPictures"}
    config["data"] = {
        "target": "main.DataModuleFromConfig",
        "params": {"batch_size": 2, "num_workers": 0, "train": node, "validation": node},
    }
    config["lightning"] = {
        "modelcheckpoint": {"params": {"every_n_train_steps": 1, "save_top_k": -1}},
        "callbacks": {"image_logger": {"params": {"disabled": True}}},
        "trainer": {"accelerator": "cpu", "max_steps": 3, "limit_val_batches": 1, "accumulate_grad_batches": 2,
                    "enable_progress_bar": False, "enable_model_summary": False},
    }  # fmt: skip
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    main(["-t", "-l", str(tmp_path / "logs"), "-b", str(path)])
    checkpoints_of_run = run_folder(tmp_path) / "checkpoints"
    whole = read_state_dict(checkpoints_of_run / "last.ckpt")
    whole = {key: value.clone() for key, value in whole.items()}
    (checkpoint,) = checkpoints_of_run.glob("*step=000000002.ckpt")
    main(["-t", "-r", str(checkpoint)])
    again = read_state_dict(checkpoints_of_run / "last.ckpt")
    assert any(key.startswith("model_ema.") for key in whole) and "scale_factor" in whole and "logvar" in whole
    different = [key for key in whole if not torch.equal(whole[key], again[key])]
    assert different == []


def test_a_failed_save_leaves_the_last_checkpoint_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path, "-b", write_config(tmp_path, steps=2))
    last = run_folder(tmp_path) / "checkpoints" / "last.ckpt"
    before = last.read_bytes()

    def full_disk(state: Any, file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(UserError, match="No space left"):
        train(tmp_path, "-r", str(run_folder(tmp_path)), "--max_steps", "3")
    assert last.read_bytes() == before
    assert not list(last.parent.glob(".*"))


def start(folder: Path, *arguments: str) -> forked.Forked:
    return forked.start("main.py", "-t", "-l", folder / "logs", *arguments)


def wait_for_lines(folder: Path, count: int, process: forked.Forked) -> None:
    log = folder / "log.0"
    deadline = time.monotonic() + 400
    while not log.exists() or len(log.read_text().splitlines()) < count:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the run did not get that far"
        time.sleep(0.02)


@pytest.mark.slow
def test_continues_exactly_after_kill_9(straight: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    process = start(tmp_path, "-b", write_config(tmp_path, every=2), "model.params.delay=0.2")
    wait_for_lines(tmp_path, 9, process)  # step 4 is saved, step 5 has begun
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    killed = history(tmp_path)
    assert 9 <= len(killed) < 2 * STEPS
    rest = train(tmp_path, "-r", str(run_folder(tmp_path)), "model.params.delay=0")
    assert killed == straight[1][: len(killed)]
    assert rest == straight[1][-len(rest) :]
    assert len(rest) + len(killed) >= 2 * STEPS


@pytest.mark.parametrize("batch", [2, 3, 5])  # inside an update, at its end, at the end of the epoch
def test_ctrl_c_saves_and_nothing_is_done_twice(
    straight: tuple[Path, list[dict[str, Any]]], tmp_path: Path, batch: int, caplog: pytest.LogCaptureFixture
) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as stop:
        train(tmp_path, "-b", write_config(tmp_path, every=100), f"model.params.interrupt_at={batch}")
    assert stop.value.code == 130
    assert f"-t -r {run_folder(tmp_path)}" in caplog.text
    stopped = history(tmp_path)
    assert len(stopped) == (batch + 2) // 2 * 2, "a stop waits for the update"
    rest = train(tmp_path, "-r", str(run_folder(tmp_path)), "model.params.interrupt_at=-1")
    assert stopped + rest == straight[1]
    assert signal.getsignal(signal.SIGINT) is before, "handlers are put back"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_saves_too(
    straight: tuple[Path, list[dict[str, Any]]], tmp_path: Path, number: signal.Signals
) -> None:
    """As a terminal and a batch system send it: the loader's workers are needed until the step is done."""
    config = write_config(tmp_path, every=100)
    changes = ["data.params.num_workers=2", "data.params.validation=null", "model.params.delay=0.1"]
    pid = os.fork()
    if not pid:  # a command that has imported everything already
        os.setsid()
        with (tmp_path / "said").open("wb") as log:
            os.dup2(log.fileno(), 2)
        sys.stderr = os.fdopen(2, "w")
        be_command(COMMANDS["training"], ["-t", "-l", str(tmp_path / "logs"), "-b", config, *changes])
    while not (tmp_path / "log.0").exists() or len(history(tmp_path)) < 3:
        assert os.waitpid(pid, os.WNOHANG) == (0, 0), (tmp_path / "said").read_text()
        time.sleep(0.02)
    os.killpg(pid, number)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    said = (tmp_path / "said").read_text()
    assert code == 128 + number and said.count("stopping after this step") == 1 and "Traceback" not in said, said
    rest = train(tmp_path, "-r", str(run_folder(tmp_path)), "data.params.num_workers=0", "model.params.delay=0")
    assert history(tmp_path) == straight[1] and 0 < len(rest) < 2 * STEPS


@pytest.mark.slow
def test_two_processes_share_the_data_and_stop_and_continue(tmp_path: Path) -> None:
    changes = ["--devices", "2", "--limit_val_batches", "1", "--accumulate_grad_batches", "1", "--strategy"]
    (whole, broken) = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    train(whole, "-b", write_config(whole, every=4, steps=5), *changes, "ddp_fork")
    logs = [history(whole, rank) for rank in (0, 1)]
    epoch = [[item for line in log[:3] for item in line["items"]] for log in logs]
    assert sorted(epoch[0] + epoch[1]) == list(range(22)), "each item once, to one of the two"
    assert [line["weights"] for line in logs[0]] == [line["weights"] for line in logs[1]]
    assert logs[0][0]["loss"] != logs[1][0]["loss"]

    process = start(broken, "-b", write_config(broken, every=100, steps=5), *changes, "ddp", "model.params.delay=0.3")
    wait_for_lines(broken, 2, process)
    process.send_signal(signal.SIGINT)  # to one process only; they decide together
    _, errors = process.communicate(timeout=60)
    assert process.wait() == 130, errors
    assert "Traceback" not in errors
    train(broken, "-r", str(run_folder(broken)), "model.params.delay=0", "--strategy", "ddp_fork")
    assert [history(broken, rank) for rank in (0, 1)] == logs


def test_checkpoints_are_read_without_running_anything(tmp_path: Path) -> None:
    class Bad:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path}/ran",)

    torch.save({"state_dict": {}, "bad": Bad()}, tmp_path / "bad.ckpt")
    with pytest.raises(UserError):
        checkpoints.AtomicCheckpointIO().load_checkpoint(tmp_path / "bad.ckpt")
    assert not (tmp_path / "ran").exists()

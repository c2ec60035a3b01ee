"""Folders of runs: two in one second, configurations in the order of their starts, folders that go away, seeds."""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from ldm.training import run_folder as folders
from ldm.training.config import in_order, read_config
from ldm.training.launch import main, seed_of
from ldm.training.options import make_parser
from ldm.util import UserError, read_yaml, run_command
from tests.training.test_resume import run_folder, write_config

STAMP = "2026-10-25T02-30-00"


def stopped_clock(monkeypatch: pytest.MonkeyPatch, stamp: str) -> None:
    monkeypatch.setattr(folders.time, "strftime", lambda form: stamp)


def options_of(folder: Path, *more: str) -> argparse.Namespace:
    return make_parser().parse_args(["-n", "a", "-l", str(folder / "logs"), *more])


def test_two_runs_of_one_second_get_two_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped_clock(monkeypatch, STAMP)
    options = options_of(tmp_path)
    run = folders.choose_run_folder(options)
    assert not (tmp_path / "logs").exists()
    with folders.claimed(options, run) as first, folders.claimed(options, folders.choose_run_folder(options)) as second:
        assert first.path.is_dir() and first.path.name == f"{STAMP}_a"
        assert second.path.is_dir() and second.path.name == "2026-10-25T02-30-01_a"
        assert second.now == "2026-10-25T02-30-01"
        (second.path / "file").touch()
    assert [p.name for p in (tmp_path / "logs").iterdir()] == [second.path.name], "an empty one is gone"


def claim(folder: Path, names: multiprocessing.Queue[str], together: object) -> None:
    options = options_of(folder)
    run = folders.choose_run_folder(options)
    together.wait()  # type: ignore[attr-defined]
    with folders.claimed(options, run) as mine:
        (mine.path / "file").touch()
        names.put(mine.path.name)


def test_processes_that_begin_together_share_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped_clock(monkeypatch, STAMP)
    context = multiprocessing.get_context("fork")
    names, together = context.Queue(), context.Barrier(4)
    processes = [context.Process(target=claim, args=(tmp_path, names, together)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert len({names.get(timeout=10) for _ in processes}) == 4


def test_what_a_killed_run_has_left_is_cleared_at_the_next_start(tmp_path: Path) -> None:
    runs = [tmp_path / "logs" / name for name in ("a", "b")]
    for run in runs:
        for place in ("configs", "checkpoints", "images/train"):
            part = run / place / ".ldm-abcdefgh.part"
            part.mkdir(parents=True)
            (part / ".lock").touch()
            (part / "half").touch()
    folders.choose_run_folder(options_of(tmp_path))
    assert not list(tmp_path.rglob(".ldm-*")) and all((run / "images" / "train").is_dir() for run in runs)


def test_a_run_that_never_began_leaves_no_folder(tmp_path: Path) -> None:
    options = options_of(tmp_path)
    with pytest.raises(UserError), folders.claimed(options, folders.choose_run_folder(options)):
        raise UserError("something")
    assert not (tmp_path / "logs").exists()


def test_a_resumed_run_takes_what_was_said_last_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock goes back between the starts, as in October, and stands still once."""
    stamps = ("2026-10-25T02-50-00", "2026-10-25T02-10-00", "2026-10-25T02-10-00", "2026-10-25T01-00-00")
    for number, stamp in enumerate(stamps):
        stopped_clock(monkeypatch, stamp)
        how = ["-r", str(run_folder(tmp_path))] if number else ["-b", write_config(tmp_path)]
        change = [f"data.params.batch_size={4 + number}"] if number < 3 else []
        main(["-t", "-l", str(tmp_path / "logs"), *how, "--max_steps", str(number + 1), *change])
    saved = sorted((run_folder(tmp_path) / "configs").glob("*-project.yaml"))
    said = {yaml.safe_load(path.read_text())["start_of_run"]: read_yaml(path).data.params.batch_size for path in saved}
    assert said == {1: 4, 2: 5, 3: 6, 4: 6}
    assert read_config([str(path) for path in saved], []).data.params.batch_size == 6
    assert "start_of_run" not in read_config([str(path) for path in saved], [])


def test_only_saved_yamls_are_put_in_order() -> None:
    texts = ("a: 1", "{a: 3, start_of_run: 2}", "a: 2", "{a: 4, start_of_run: 1}")
    documents = in_order([read_config([], [f"x={n}"]) | yaml.safe_load(text) for n, text in enumerate(texts)])
    assert [document["a"] for document in documents] == [1, 4, 2, 3]


def test_a_folder_that_is_deleted_while_the_run_goes_on_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.training.toy import ToyModel

    step = ToyModel.training_step

    def delete(self: ToyModel, batch: dict, batch_idx: int) -> object:
        if self.trainer.global_step == 3:
            shutil.rmtree(run_folder(tmp_path), ignore_errors=True)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(ToyModel, "training_step", delete)
    arguments = ["main.py", "-t", "-l", str(tmp_path / "logs"), "-b", write_config(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as caught:
        run_command(main)
    error = capsys.readouterr().err
    assert caught.value.code == 2 and "Traceback" not in error
    assert [line for line in error.splitlines() if line.startswith("error: ")] == error.splitlines()[-1:]
    assert not list((tmp_path / "logs").rglob("*.ckpt"))


def test_where_no_folder_can_be_is_told_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    for place in (tmp_path / "file", locked / "logs"):
        if place.parent == locked and (locked / "x").parent.stat().st_uid == 0:
            continue  # for root every folder may be written
        with pytest.raises(UserError, match="--logdir"):
            main(["-t", "-l", str(place), "-b", write_config(tmp_path)])


def test_minus_one_draws_a_seed_and_says_it(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    drawn = seed_of(-1)
    assert 0 <= drawn < 2**32 and f"the seed is {drawn}" in caplog.text
    assert seed_of(7) == 7
    for wrong in (2**32, -2, 18446744073709551616):
        with pytest.raises(UserError, match="a seed must lie between 0 and 4294967295"):
            seed_of(wrong)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="give one as a number"):
        seed_of(-1)
    monkeypatch.delenv("WORLD_SIZE")
    for name, value in {"NTASKS": "2", "JOB_NAME": "train", "PROCID": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    with pytest.raises(UserError, match="give one as a number"):
        seed_of(-1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("PL_GLOBAL_SEED", "12")
    assert seed_of(-1) == 12, "the first process has drawn it"

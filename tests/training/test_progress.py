"""What a person sees of a run: one short line on the way, and at the end where everything is and what to type next."""

from __future__ import annotations

import io
import logging
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from ldm.data.prior import WithPrior
from ldm.training.datamodule import DataModuleFromConfig
from ldm.training.ending import next_command, sentence_of
from ldm.training.latents import CachedItems
from ldm.training.progress import ProgressLine, duration, loss_of, progress_line
from ldm.workflows.models import open_model
from tests.helpers import ROOT
from tests.training.test_launch import run, write


def test_the_line() -> None:
    assert progress_line(120, 300, 0.0661, 2.12) == "step 120/300  loss 0.0661  2.1 it/s  eta 1:25"
    assert progress_line(1, 10, None, 0.25) == "step 1/10  4.0 s/it  eta 0:36"
    assert progress_line(5, float("inf"), 1.0, 0.0) == "step 5  loss 1"
    assert [duration(seconds) for seconds in (-3, 59.6, 3599, 7380)] == ["0:00", "1:00", "59:59", "2:03:00"]


def test_the_loss_is_the_simple_one_where_there_is_one() -> None:
    metrics = {"train/loss": torch.tensor(2.0), "train/loss_simple_step": torch.tensor(0.5)}
    assert loss_of(None, metrics) == 0.5
    assert loss_of({"loss": torch.tensor(3.0)}, {}) == 3.0
    assert loss_of(None, {}) is None


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO(), Screen()])
def test_a_file_gets_few_lines_and_a_terminal_one(stream: io.StringIO) -> None:
    now = [0.0]
    line = ProgressLine(stream, clock=lambda: now[0])
    trainer: Any = SimpleNamespace(global_step=0, max_steps=40, progress_bar_metrics={})
    model: Any = None
    line.on_train_start(trainer, model)
    for _ in range(40):
        now[0] += 1.0
        trainer.global_step += 1
        line.on_train_batch_end(trainer, model, {"loss": torch.tensor(0.5)}, None, 0)
    line.on_train_end(trainer, model)
    text = stream.getvalue()
    if stream.isatty():
        assert text.count("\n") == 1 and text.endswith("\n") and text.count("\r") == 41
    else:
        lines = text.splitlines()
        assert [row.split()[1] for row in lines] == ["1/40", "16/40", "31/40", "40/40"]
        assert lines[1] == "step 16/40  loss 0.5  1.0 it/s  eta 0:24"


def test_a_run_ends_with_its_folder_files_and_the_next_command(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    lightning = {"trainer": {"max_steps": 3, "log_every_n_steps": 1, "accelerator": "cpu"}}
    rare = "lightning.callbacks.image_logger.params.batch_frequency=100000"
    with caplog.at_level(logging.INFO):
        folder = run(tmp_path, "-b", write(tmp_path, lightning=lightning), "-n", "a", rare)
    said = [record.getMessage() for record in caplog.records]
    start = said.index(f"trained to step 3; everything is in {folder}")
    assert said[start + 1] == "  checkpoints/last.ckpt"
    assert said[-1] == f"next: python main.py -t -r {folder} --max_steps 6"
    out = capfd.readouterr()
    assert "step 3/3  loss " in out.err
    for noise in ("FLOPs", "weights_only", "eval mode", "GPU available", "Params", "max_steps=3"):
        assert noise not in out.out + out.err + caplog.text
    previews = {path.name.split("_")[1] for path in folder.glob("images/train/*.png")}
    assert {"gs-000001", "gs-000003"} <= previews, "at the start and at the end, whatever the frequency"


def test_pictures_at_the_end_come_without_extra_steps(tmp_path: Path) -> None:
    params = "lightning.callbacks.image_logger.params"
    rare = [f"{params}.batch_frequency=100000", f"{params}.increase_log_steps=false"]
    folder = run(tmp_path, "-b", write(tmp_path), "-n", "a", *rare, "--max_steps", "4")
    assert [path.name.split("_")[1] for path in sorted(folder.glob("images/train/inputs*"))] == [
        "gs-000001",
        "gs-000004",
    ]


def test_the_next_command_of_a_model_makes_a_picture(tmp_path: Path) -> None:
    """For the shipped model as if it had been trained: the command opens what it names."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "checkpoints").mkdir()
    config = (ROOT / "configs/tiny/ldm.yaml").read_text()
    (tmp_path / "configs" / "2026-project.yaml").write_text(config)
    (tmp_path / "checkpoints" / "last.ckpt").symlink_to(ROOT / "models/ldm/tiny/model.safetensors")
    model, _ = open_model(device="cpu")
    words = shlex.split(next_command(model, tmp_path, sentence="a dog's bone"))
    assert words[:2] == ["python", "txt2img.py"]
    given = dict(zip(words[2::2], words[3::2], strict=True))
    assert set(given) == {"--ckpt", "--config", "--prompt"} and given["--prompt"] == "a dog's bone"
    assert open_model(given["--ckpt"], given["--config"], device="cpu")[0] is not None


def test_what_a_run_says_to_ask_for_is_what_its_pictures_are_called(tmp_path: Path) -> None:
    for name, caption in (("a", "a very old goat"), ("b", "a goat")):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(caption)
    flower = {"data_root": str(ROOT / "examples/flower"), "size": 32, "placeholder_token": "sks"}
    personal = "ldm.data.personalized.PersonalizedBase"
    nodes: dict[str, dict[str, Any]] = {
        "a big sks on a beach": {"target": personal, "params": {**flower, "captions": "auto"}},
        "a sks": {"target": personal, "params": {**flower, "templates": ["there is a {}", "a {}"]}},
        "an artwork by sks": {"target": "ldm.data.personalized_style.PersonalizedBase", "params": flower},
        "a goat": {"target": "ldm.data.captioned.CaptionedFolder", "params": {"data_root": str(tmp_path)}},
        "": {"target": "tests.training.toy.ToyPictures"},
    }  # fmt: skip
    for sentence, node in nodes.items():
        data = DataModuleFromConfig(batch_size=1, train=node)
        data.setup()
        assert sentence_of(data) == sentence
        train = data.datasets["train"]
        for wrapped in (CachedItems(train, lambda images: images, "image"), WithPrior(train, train)):
            data.datasets["train"] = wrapped
            assert sentence_of(data) == sentence
    assert sentence_of(None) == ""

"""The commands that ``benchmarks.kills`` disturbs: small runs of each kind, how they go on, and what comes of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ldm.checkpoint import read_file
from scripts.world_pairs import write_pairs

QUIET = ["--enable_progress_bar", "false", "--enable_model_summary", "false", "--log_every_n_steps", "1",
         "--accelerator", "cpu", "--precision", "32", "--scale_lr", "false"]  # fmt: skip


@dataclass(frozen=True)
class Command:
    """A command whose result does not depend on when it was stopped.

    Attributes:
        module: of ``ldm.commands``.
        file: its file in the repository's root.
        arguments: for a folder that it writes into, and one with what all runs read.
        results: name -> digest, of what is in the folder when it has come to its end.
    """

    module: str
    file: str
    arguments: Callable[[Path, Path], list[str]]
    results: Callable[[Path], dict[str, str]]

    def going_on(self, folder: Path, inputs: Path) -> list[str]:
        """The arguments after a stop: a run that can be resumed is, anything else is asked for again."""
        last = sorted(folder.glob("logs/*/checkpoints/last.ckpt"))
        return ["-t", "-r", str(last[-1].parent.parent)] if last else self.arguments(folder, inputs)


def prepare(inputs: Path) -> None:
    """Write what the commands read: pictures, and sentence pairs."""
    draw = np.random.default_rng(0)
    for folder, count in (("pictures", 2), ("styles", 1)):
        (inputs / folder).mkdir(parents=True)
        for number in range(count):
            coarse = Image.fromarray(draw.integers(0, 255, (6, 6, 3), np.uint8))
            coarse.resize((64, 64), Image.Resampling.BICUBIC).save(inputs / folder / f"{number}.png")
    write_pairs(inputs / "pairs.csv", 48, "train", 0)


def training(folder: Path, inputs: Path) -> list[str]:
    """A diffusion model with averaged weights, pictures, validation, and a checkpoint every second step."""
    data, callbacks = "data.params", "lightning.callbacks.image_logger.params"
    return [
        "-b", "configs/tiny/ldm.yaml", "-t", "-n", "run", "-l", str(folder / "logs"), *QUIET, "--max_steps", "7",
        "model.params.unet_config.params.model_channels=32", "model.params.cond_stage_config.params.n_layer=1",
        "--val_check_interval", "3", f"{data}.batch_size=4", f"{data}.cache_precision=fp32",
        f"{data}.num_workers=0", f"{data}.train.params.length=16", f"{data}.train.params.size=64",
        f"{data}.validation.target=ldm.world.scenes.SceneWorld",
        f"{data}.validation.params={{split: heldout, size: 64, length: 2}}",
        "lightning.compile=false", f"{callbacks}.disabled=false",
        "lightning.modelcheckpoint.params.every_n_train_steps=2", f"{callbacks}.batch_frequency=3",
        f"{callbacks}.max_images=1", f"{callbacks}.log_images_kwargs.ddim_steps=2",
        f"{callbacks}.log_images_kwargs.N=1", f"{callbacks}.increase_log_steps=false",
    ]  # fmt: skip


def words(folder: Path, inputs: Path) -> list[str]:
    """A learned word, with its files."""
    return [
        "-b", "configs/tiny/textual-inversion.yaml", "-t", "-n", "run", "-l", str(folder / "logs"), *QUIET,
        "--max_steps", "7", "--data_root", str(inputs / "pictures"), "--init_word", "star", "data.params.batch_size=4",
        "data.params.train.params.repeats=8", "lightning.modelcheckpoint.params.every_n_train_steps=2",
        "lightning.callbacks.embeddings.params.every_n_steps=3",
        "lightning.callbacks.image_logger.params.disabled=true",
    ]  # fmt: skip


def aligner(folder: Path, inputs: Path) -> list[str]:
    """An aligner with its encoder, from sentence pairs."""
    data = "data.params"
    return [
        "-b", "configs/aligner/tiny.yaml", "-t", "-n", "run", "-l", str(folder / "logs"), *QUIET, "--max_steps", "9",
        "--val_check_interval", "4", "model.params.encoder=models/ldm/tiny/multilingual", f"{data}.batch_size=6",
        f"{data}.train.params.path={inputs / 'pairs.csv'}", f"{data}.validation.params.path={inputs / 'pairs.csv'}",
        "lightning.trainer.limit_val_batches=1", "lightning.modelcheckpoint.params.every_n_train_steps=3",
    ]  # fmt: skip


def txt2img(folder: Path, inputs: Path) -> list[str]:
    """Four pictures in two batches, and their sheet."""
    return ["--prompt", "a red star on a blue background", "--outdir", str(folder / "out"), "--n_samples", "2",
            "--n_iter", "2", "--steps", "6", "--seed", "5", "--device", "cpu"]  # fmt: skip


def styleid(folder: Path, inputs: Path) -> list[str]:
    """Two contents in the manner of one style, with inversions that are kept."""
    return ["--cnt", str(inputs / "pictures"), "--sty", str(inputs / "styles"), "--output_path", str(folder / "out"),
            "--precomputed", str(folder / "kept"), "--features", "disk", "--ddim_inv_steps", "6",
            "--save_feat_steps", "6", "--device", "cpu"]  # fmt: skip


def of_training(folder: Path) -> dict[str, str]:
    """Weights, averages, optimizers and schedules at the end, and the small files beside them."""
    (last,) = sorted(folder.glob("logs/*/checkpoints/last.ckpt"))[-1:]
    state = read_file(last)
    found = {key: digest(_leaves(state[key])) for key in ("state_dict", "optimizer_states", "lr_schedulers")}
    found["step"] = str(state["global_step"])
    return found | {path.name: of_file(path) for path in sorted(last.parent.glob("embeddings.*"))}


def of_numbered(folder: Path) -> dict[str, str]:
    """The different pictures that there are (a second request makes the first one's again), and the last sheet."""
    samples = {of_file(path) for path in folder.glob("out/samples/*")}
    sheets = sorted(folder.glob("out/grid-*"))[-1:]
    return {"samples": " ".join(sorted(samples)), "sheets": " ".join(of_file(path) for path in sheets)}


def of_restyling(folder: Path) -> dict[str, str]:
    """Results, what they were made with, the sheet, and the inversions that were kept."""
    files = [*folder.glob("out/*.png"), *folder.glob("kept/*")]
    found = {str(path.relative_to(folder)): of_file(path) for path in files}
    for path in folder.glob("out/*.json"):
        found[path.name] = json.dumps(json.loads(path.read_text())["parameters"], sort_keys=True)
    return found


COMMANDS = {
    "training": Command("train", "main.py", training, of_training),
    "words": Command("train", "main.py", words, of_training),
    "StyleID": Command("styleid", "run_styleid.py", styleid, of_restyling),
    "txt2img": Command("txt2img", "txt2img.py", txt2img, of_numbered),
    "aligner": Command("train", "main.py", aligner, of_training),
}


def of_file(path: Path) -> str:
    """A hash of its bytes; of a folder, of its files'."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else "a folder"


def digest(values: Iterable[tuple[str, Any]]) -> str:
    """A hash of named tensors and plain values."""
    found = hashlib.sha256()
    for name, value in values:
        found.update(name.encode())
        if isinstance(value, torch.Tensor):
            found.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
            value = value.dtype, value.shape
        found.update(repr(value).encode())
    return found.hexdigest()[:16]


def _leaves(value: Any, name: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict):
        for key in value:
            yield from _leaves(value[key], f"{name}.{key}")
    elif isinstance(value, (list, tuple)):
        for key, one in enumerate(value):
            yield from _leaves(one, f"{name}.{key}")
    else:
        yield name, value

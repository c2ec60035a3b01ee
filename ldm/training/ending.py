"""What a person wants to know when training is over: where everything is, and what to type next."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pytorch_lightning as pl

from ldm.additions.base import Addition
from ldm.additions.vocabulary import Words
from ldm.data.prior import WithPrior
from ldm.shipped import here_or_shipped
from ldm.training.config import saved_at
from ldm.training.datamodule import DataModuleFromConfig
from ldm.training.latents import CachedItems, LatentModel
from ldm.training.learner import learned_by

log = logging.getLogger(__name__)

USUAL_MODEL = "models/ldm/tiny/model.safetensors"  # what a command takes that is given none
FILES = ("checkpoints/last.ckpt", "checkpoints/*.safetensors", "metrics/version_*/metrics.csv",
         "metrics/version_*/loss.png")  # fmt: skip
PREVIEWS = "images/*/*.png"


@runtime_checkable
class HasNext(Protocol):
    """A model that knows itself what comes after its training."""

    def next_command(self, folder: str) -> str:
        """What to type, given the run's folder as a shell reads it."""
        ...


@runtime_checkable
class HasSentence(Protocol):
    """A data set that can say what it is about."""

    @property
    def sentence(self) -> str:
        """A short one of its sentences."""
        ...


class Ending(pl.Callback):
    """Says the run folder, the files in it, and the next command.

    Args:
        folder: the run's.
        base: the weights that it began from; empty for none.
    """

    def __init__(self, folder: Path, base: str = "") -> None:
        self.folder, self.base = folder, base

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        log.info("trained to step %d; everything is in %s", trainer.global_step, self.folder)
        for path in files_of(self.folder):
            log.info("  %s", path.relative_to(self.folder))
        data = getattr(trainer, "datamodule", None)
        log.info("next: %s", next_command(pl_module, self.folder, self.base, sentence_of(data)))


def files_of(folder: Path) -> list[Path]:
    """The files of a run that a person looks for: of metrics and previews the last ones."""
    found = []
    for pattern in FILES:
        matching = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime)
        found += matching[-1:] if pattern.startswith("metrics") else [p for p in matching if "_gs-" not in p.name]
    newest = max((path.stat().st_mtime for path in folder.glob(PREVIEWS)), default=0.0)
    return found + sorted(path for path in folder.glob(PREVIEWS) if path.stat().st_mtime > newest - 10)


def sentence_of(data: Any) -> str:
    """A sentence under which the pictures of a run are learned; empty where its data set does not say one."""
    train = data.datasets.get("train") if isinstance(data, DataModuleFromConfig) else None
    if isinstance(train, CachedItems):
        train = train.data
    if isinstance(train, WithPrior):
        train = train.subject
    return train.sentence if isinstance(train, HasSentence) else ""


def next_command(model: Any, folder: Path, base: str = "", sentence: str = "") -> str:
    """The command that shows what a run has come to; for what makes no pictures, the one that goes on with it.

    Args:
        sentence: what to ask for; empty: what usual models know.
    """
    installed = Path(sys.argv[0]).name.startswith("ldm-")
    pictures = "ldm-txt2img" if installed else "python txt2img.py"
    config = max((folder / "configs").glob("*-project.yaml"), key=saved_at, default=None)
    draws = isinstance(model, LatentModel)
    if isinstance(model, HasNext):
        return model.next_command(shlex.quote(str(folder)))
    if not draws or config is None or model.needs or not model.needs.reads_prompts:
        train = "ldm-train" if installed else "python main.py"
        return f"{train} -t -r {shlex.quote(str(folder))} --max_steps {max(model.global_step, 1) * 2}"
    additions = learned_by(model)
    if not model.learning.additions_only:
        flags = _model_flags(folder / "checkpoints/last.ckpt", config)
        return " ".join([pictures, *flags, _prompt(sentence or "a red star")])
    usual = not base or here_or_shipped(Path(base)) == here_or_shipped(Path(USUAL_MODEL))
    flags = [] if usual else _model_flags(Path(base), config)
    return " ".join([pictures, *flags, *_addition_flags(additions, folder / "checkpoints", sentence)])


def _addition_flags(additions: Sequence[Addition], checkpoints: Path, sentence: str) -> list[str]:
    flag = {"embeddings": "--embedding_path", "adapters": "--adapter_path", "lora": "--lora"}
    words = [word for one in additions if isinstance(one, Words) for word in one.placeholders]
    if words and not any(word in sentence for word in words):
        sentence = f"a photo of {words[0]}"
    flags = [_prompt(sentence or "a red star")]
    for one in additions:
        path = checkpoints / f"{one.file_name}.safetensors"
        if one.file_name in flag and path.is_file():
            flags += [flag[one.file_name], shlex.quote(str(path))]
    return flags


def _model_flags(weights: Path, config: Path) -> list[str]:
    return ["--ckpt", shlex.quote(str(weights)), "--config", shlex.quote(str(config))]


def _prompt(text: str) -> str:
    return f"--prompt {shlex.quote(text)}"

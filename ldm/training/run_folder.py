"""Where a run lives: a new folder under ``logs/``, or the one that it is resumed from."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

from ldm.checkpoint import is_lightning_checkpoint
from ldm.runs import LAST, given_or_latest
from ldm.util import UserError, writable_folder


@dataclass(frozen=True)
class RunFolder:
    """``logs/<date>_<name><postfix>/`` with configs/, checkpoints/, images/, metrics/; what to resume from."""

    path: Path
    now: str
    checkpoint: Path | None = None

    @property
    def configs(self) -> Path:
        return self.path / "configs"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"


def choose_run_folder(options: argparse.Namespace) -> RunFolder:
    """The folder of this run; nothing is made yet.

    Raises:
        UserError: ``--resume`` names nothing that can be resumed, or comes with ``--name``; ``--logdir`` is a file, or
            may not be written.
    """
    now = time.strftime("%Y-%m-%dT%H-%M-%S")
    if options.resume:
        return _resumed(options, now)
    name = options.name or (Path(options.base[0]).stem if options.base else "run")
    front = Path(options.data_root).name + "_" if options.datadir_in_name and options.data_root else ""
    path = Path(options.logdir) / f"{front}{now}_{name}{options.postfix}"
    return RunFolder(writable_folder(path, "--logdir and --name"), now)


def _resumed(options: argparse.Namespace, now: str) -> RunFolder:
    if options.name:
        raise UserError("--name and --resume exclude each other: a resumed run keeps its folder")
    given = given_or_latest(options.resume, LAST, options.logdir)
    if not given.exists():
        raise UserError(f"--resume: there is no '{given}'; give a run folder or a checkpoint inside one")
    checkpoint = given if given.is_file() else given / "checkpoints" / "last.ckpt"
    if not checkpoint.is_file():
        raise UserError(f"--resume: '{given}' holds no checkpoints/last.ckpt to go on with")
    if not is_lightning_checkpoint(checkpoint):
        raise UserError(f"--resume: '{checkpoint}' has no training state; start from it with --actual_resume")
    path = checkpoint.resolve().parent.parent
    return RunFolder(path, now, checkpoint)


def saved_configurations(options: argparse.Namespace, run: RunFolder) -> list[str]:
    """The YAMLs that the resumed run has saved, oldest first; those of the command line are merged on top.

    Raises:
        UserError: there is none.
    """
    saved = sorted(run.configs.glob("*.yaml")) if run.checkpoint else []
    if not saved and not options.base:
        raise UserError("no configuration: give at least one YAML with -b, for example -b configs/tiny/ldm.yaml -t")
    return [str(path) for path in saved]

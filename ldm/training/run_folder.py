"""Where a run lives: a new folder under ``logs/``, or the one that it is resumed from."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pytorch_lightning.utilities import rank_zero_only

from ldm.checkpoint import is_lightning_checkpoint
from ldm.runs import LAST, given_or_latest
from ldm.stopping import removed_on_stop
from ldm.util import UserError, clear_leftovers, writable_folder

STAMP = "%Y-%m-%dT%H-%M-%S"
WRITTEN = ("configs", "checkpoints", "images", "images/*", "metrics/*")  # where files of a run grow


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
    now = time.strftime(STAMP)
    if options.resume:
        return _resumed(options, now)
    run = _new(options, now)
    for folder in Path(options.logdir).glob("*"):  # what was killed before its first checkpoint is never resumed
        _clear(folder)
    return run


def _new(options: argparse.Namespace, now: str) -> RunFolder:
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
    path = writable_folder(checkpoint.resolve().parent.parent, "--resume")
    _clear(path)
    while any((path / "configs").glob(f"{now}-*.yaml")):
        now = _later(now)
    return RunFolder(path, now, checkpoint)


def _clear(run: Path) -> None:
    """What processes that were killed have left in a run's folder."""
    clear_leftovers(run, *(folder for place in WRITTEN for folder in run.glob(place)))


@contextlib.contextmanager
def claimed(options: argparse.Namespace, run: RunFolder) -> Iterator[RunFolder]:
    """A run with its folder made, for it alone: of two that begin in one second, one gets the next second's name.

    A folder that nothing was put into is gone after the block. In a distributed run the first process does this.
    """
    if run.checkpoint is not None or getattr(rank_zero_only, "rank", 0) != 0:
        yield run
        return
    missing = [folder for folder in run.path.absolute().parents if not folder.exists()]
    while True:
        try:
            run.path.mkdir(parents=True)
            break
        except FileExistsError:
            run = _new(options, _later(run.now))
    with contextlib.ExitStack() as stack:
        for folder in (*reversed(missing), run.path):
            stack.callback(_remove_empty, folder)
            stack.enter_context(removed_on_stop(folder, only_empty=True))
        yield run


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _later(stamp: str) -> str:
    """The next second."""
    day, clock = stamp.split("T")
    moment = datetime.fromisoformat(f"{day}T{clock.replace('-', ':')}") + timedelta(seconds=1)
    return moment.isoformat(timespec="seconds").replace(":", "-")


def saved_configurations(options: argparse.Namespace, run: RunFolder) -> list[str]:
    """The YAMLs that the resumed run has saved (``read_config`` orders them); the command line's are merged on top.

    Raises:
        UserError: there is none.
    """
    saved = sorted(run.configs.glob("*.yaml")) if run.checkpoint else []
    if not saved and not options.base:
        raise UserError("no configuration: give at least one YAML with -b, for example -b configs/tiny/ldm.yaml -t")
    return [str(path) for path in saved]

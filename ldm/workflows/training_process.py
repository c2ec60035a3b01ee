"""A run of main.py as a process of its own: how far it is, what it has come to, and how it is ended in good order."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ldm.runs import LOGS, runs
from ldm.shipped import ROOT
from ldm.util import UserError
from ldm.workflows.watch import Step, Watch

log = logging.getLogger(__name__)

LOOK = 0.3  # seconds between two looks
PROGRESS = "progress.json"  # in the run's folder; see ldm.training.progress
TASK = "training"
STOPPED = (130, 143, -signal.SIGINT, -signal.SIGTERM)


@dataclass(frozen=True)
class Progress:
    """Where a run is; ``loss`` is None before there is one."""

    step: int
    steps: int
    loss: float | None = None


def train(
    arguments: Sequence[str], name: str, watch: Watch[Path] | None = None, logdir: str | Path = LOGS
) -> Path | None:
    """Train as main.py does with these arguments; the run's folder, None for one that was ended before it had any.

    The watch gets the folder as soon as it is there, and each step. A run that is cancelled saves and ends; it goes on
    with ``resume``.

    Raises:
        UserError: what main.py says.
    """
    logdir = Path(logdir)
    before = set(runs(logdir))
    given = [*arguments, "--logdir", str(logdir), "--name", name]

    def new() -> Path | None:
        return next((run for run in runs(logdir, name) if run not in before), None)

    return _follow(given, new, watch or Watch())


def resume(run: Path, watch: Watch[Path] | None = None, arguments: Sequence[str] = ()) -> Path | None:
    """Go on with a run, as ``train``."""
    (run / PROGRESS).unlink(missing_ok=True)  # where it was is not where it is
    return _follow(["-t", "--resume", str(run), *arguments], lambda: run, watch or Watch())


def _follow(arguments: Sequence[str], find: Callable[[], Path | None], watch: Watch[Path]) -> Path | None:
    run: Path | None = None
    stopping = False
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said, _started(arguments, said) as process:
        while True:
            code = process.poll()
            if run is None:
                run = find()
                if run is not None:
                    watch.result(run)
            now = None if run is None else progress_of(run)
            if now is not None and watch.on_step is not None:
                watch.on_step(Step(TASK, now.step, now.steps))
            if code is not None:
                break
            if not stopping and watch.cancelled is not None and watch.cancelled():
                process.send_signal(signal.SIGINT)
                stopping = True
            time.sleep(LOOK)
        said.seek(0)
        _tell(said.read().splitlines(), code)
    return run if run is not None and run.is_dir() else None


@contextlib.contextmanager
def _started(arguments: Sequence[str], said: IO[str]) -> Iterator[subprocess.Popen[Any]]:
    """The process, apart from this one's Ctrl-C; it does not outlive the block."""
    process = subprocess.Popen(
        [*command(), *arguments], stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait()


def command() -> list[str]:
    """What trains: main.py, or the console command of an installation."""
    main = ROOT / "main.py"
    return [sys.executable, str(main)] if main.is_file() else [str(Path(sys.executable).with_name("ldm-train"))]


def _tell(lines: list[str], code: int) -> None:
    """Hand on what the process has said.

    Raises:
        UserError: it failed.
    """
    if code != 0 and code not in STOPPED:
        errors = [line for line in lines if line.startswith("error: ")] or lines or [f"it ended with code {code}"]
        raise UserError(errors[-1].removeprefix("error: "))
    for line in lines:
        if line.startswith(("trained to step", "stopped;", "warning")) or "caption" in line:
            log.info("%s", line)


def progress_of(run: Path) -> Progress | None:
    """Where a run says that it is."""
    try:
        found = json.loads((run / PROGRESS).read_text(encoding="utf-8"))
        return Progress(int(found["step"]), int(found["steps"]), found.get("loss"))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def previews_of(run: Path, most: int = 4) -> list[Path]:
    """The pictures that a run has drawn of its prompts on the way, the newest first."""
    found = [path for path in run.glob("images/train/samples*_gs-*.png") if "inputs" not in path.name]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)[:most]

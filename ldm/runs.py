"""What ``latest`` and ``latest:NAME`` stand for wherever a file of a training run is asked for."""

from __future__ import annotations

import functools
import logging
import os
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from ldm.util import UserError

log = logging.getLogger(__name__)

LATEST = "latest"
LOGS = "logs"
LAST = ("checkpoints/last.ckpt",)
WORDS = ("checkpoints/embeddings.safetensors", "checkpoints/embeddings.pt")
ADAPTERS = ("checkpoints/adapters.safetensors",)
LORAS = ("checkpoints/lora.safetensors", "checkpoints/difference.safetensors")
_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d)_?(.*)")


def is_latest(text: str | os.PathLike[str]) -> bool:
    """Whether a text asks for the latest run, and is no file of that name."""
    text = os.fspath(text)
    return (text == LATEST or text.startswith(f"{LATEST}:")) and not Path(text).exists()


def given_or_latest(
    text: str | os.PathLike[str], files: Sequence[str] = LAST, logdir: str | os.PathLike[str] = LOGS
) -> Path:
    """``text`` as a path; for ``latest`` the first of ``files`` that the newest run has, of those that have one.

    ``latest:NAME`` is the newest of the runs that were started with ``--name NAME``; ``*`` in it stands for anything.

    Raises:
        UserError: there is no such run.
    """
    if not is_latest(text):
        return Path(text)
    name = os.fspath(text).partition(":")[2]
    for run in runs(Path(logdir), name):
        for file in files:
            if (run / file).is_file():
                _tell(os.fspath(text), run / file)
                return run / file
    called = f" called '{name}'" if name else ""
    raise UserError(f"'{os.fspath(text)}': no run{called} in '{logdir}' has {' or '.join(files)}")


@functools.cache
def _tell(text: str, path: Path) -> None:
    """Said once, however often it is looked up."""
    log.info("%s: %s", text, path)


def runs(logdir: Path, name: str = "") -> list[Path]:
    """The run folders of ``logdir``, the newest first, by the date in their names."""
    found = []
    for path in logdir.iterdir() if logdir.is_dir() else ():
        match = _STAMP.search(path.name)
        if match and path.is_dir() and (not name or _is_called(match[2], name)):
            found.append((match[1], path.stat().st_mtime, path))
    return [path for *_, path in sorted(found, reverse=True)]


def _is_called(ending: str, name: str) -> bool:
    """By its name alone, or with the number that a second run of one second gets."""
    return fnmatchcase(ending, name) or fnmatchcase(re.sub(r"[-_]\d+$", "", ending), name)

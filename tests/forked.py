"""Commands as forks of this process, which has imported what they need: each is spared ten seconds of importing.

What a command does while it is imported, and where Python finds its modules, is shown by those that are started for
good (tests/test_stopping.py, tests/test_package.py, tests/test_imports.py).
"""

from __future__ import annotations

import logging
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import IO, NoReturn

import torch

from tests.helpers import ROOT


class Forked:
    """A command that has been started; it is used like a ``subprocess.Popen``."""

    def __init__(self, pid: int, output: IO[str], errors: IO[str]) -> None:
        self.pid, self._files = pid, (output, errors)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code (minus the number of the signal that ended it), None while it runs."""
        if self.returncode is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if done else None
        return self.returncode

    def communicate(self) -> tuple[str, str]:
        """Wait for its end; what it has written to stdout and stderr."""
        if self.poll() is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        for file in self._files:
            file.seek(0)
        return self._files[0].read(), self._files[1].read()


def start(*command: object, cwd: Path = ROOT, **environment: str) -> Forked:
    """Start ``python *command``: a file and its arguments, or ``-m``, a module and its arguments."""
    output, errors = (tempfile.TemporaryFile("w+", encoding="utf-8") for _ in range(2))  # noqa: SIM115
    pid = os.fork()
    if not pid:
        os.dup2(output.fileno(), 1)
        os.dup2(errors.fileno(), 2)
        _be([str(word) for word in command], cwd, environment)
    return Forked(pid, output, errors)


def run(*command: object, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """``start``, and wait for its end."""
    started = start(*command, cwd=cwd, **environment)
    output, errors = started.communicate()
    assert started.returncode is not None
    return subprocess.CompletedProcess(command, started.returncode, output, errors)


def _be(words: list[str], cwd: Path, environment: dict[str, str]) -> NoReturn:
    """In the fork: be the command, and nothing of the test that has started it."""
    code = 1
    try:
        sys.stdout, sys.stderr = (os.fdopen(os.dup(number), "w", encoding="utf-8") for number in (1, 2))
        logging.root.handlers.clear()  # pytest's
        logging.root.setLevel(logging.WARNING)
        torch.set_num_threads(1)  # those of another number died with the fork
        os.environ |= environment
        os.chdir(cwd)
        if words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__")
        else:
            sys.argv = [str(ROOT / words[0]), *words[1:]]
            runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else end.code is not None
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

"""Commands as forks of this process, which has imported what they need: each is spared ten seconds of importing.

What a command does while it is imported, and where Python finds its modules, is shown by those that are started for
good (tests/test_stopping.py, tests/test_package.py, tests/test_imports.py).
"""

from __future__ import annotations

import logging
import math
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, NoReturn

import torch

from tests.helpers import ROOT

AFRESH = "import sys\nfor name in [one for one in sys.modules if one.split('.')[0] == 'ldm']: del sys.modules[name]\n"
_pipes: list[IO[str]] = []  # this process's ends, which another fork must not keep open


class Forked:
    """A command that has been started; it is used like a ``subprocess.Popen``."""

    def __init__(self, pid: int, stdin: IO[str] | None, stdout: IO[str], stderr: IO[str] | None) -> None:
        self.pid, self.stdin, self.stdout, self.stderr = pid, stdin, stdout, stderr
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code (minus the number of the signal that ended it), None while it runs."""
        if self.returncode is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if done else None
        return self.returncode

    def wait(self, timeout: float = math.inf) -> int:
        """Its exit code, when it has come to its end, which takes at most so many seconds."""
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            assert time.monotonic() < end, "the command does not end"
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send it SIGTERM, if it has not ended."""
        self.send_signal(signal.SIGTERM)

    def communicate(self, timeout: float = math.inf) -> tuple[str, str]:
        """``wait``, and what it has written to stdout and stderr."""
        assert self.stderr is not None
        self.wait(timeout)
        self.stdout.seek(0)
        self.stderr.seek(0)
        return self.stdout.read(), self.stderr.read()


def start(*command: object, cwd: Path = ROOT, environment: Mapping[str, str] | None = None) -> Forked:
    """Start ``python *command``: a file, ``-m`` with a module or ``-c`` with a program, and arguments."""
    output, errors = (tempfile.TemporaryFile("w+", encoding="utf-8") for _ in range(2))  # noqa: SIM115
    with open(os.devnull) as nothing:  # noqa: PTH123
        pid = _fork([str(word) for word in command], cwd, environment or {}, (nothing, output, errors))
    return Forked(pid, None, output, errors)


def run(
    *command: object, cwd: Path = ROOT, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """``start``, and wait for the end."""
    started = start(*command, cwd=cwd, environment=environment)
    output, errors = started.communicate()
    return subprocess.CompletedProcess([str(word) for word in command], started.wait(), output, errors)


def written(command: Sequence[str], stdout: IO[str], **_: Any) -> Forked:
    """In place of ``subprocess.Popen``, where that starts Python, which writes all that it says into a file."""
    with open(os.devnull) as nothing:  # noqa: PTH123
        pid = _fork(command[1:], ROOT, {}, (nothing, stdout, stdout))
    return Forked(pid, None, stdout, None)


def piped(command: Sequence[str], cwd: Path = ROOT, **_: Any) -> Forked:
    """In place of ``subprocess.Popen``, where that starts Python and talks to it by its stdin and stdout."""
    (asked, ask), (answers, answer) = os.pipe(), os.pipe()
    _pipes.extend([os.fdopen(ask, "w"), os.fdopen(answers)])
    with os.fdopen(asked) as stdin, os.fdopen(answer, "w") as stdout:
        pid = _fork(command[1:], cwd, {}, (stdin, stdout, sys.__stderr__ or stdout))
    return Forked(pid, _pipes[-2], _pipes[-1], None)


def as_subprocess(popen: Callable[..., Forked] = piped) -> SimpleNamespace:
    """In place of the module ``subprocess``, where that starts Python in one of these ways, or runs it to its end."""

    def ran(command: Sequence[str], cwd: Path, check: bool) -> None:
        done = run(*command[1:], cwd=cwd)
        assert not check or done.returncode == 0, done.stderr

    return SimpleNamespace(
        Popen=popen, run=ran, PIPE=subprocess.PIPE, DEVNULL=subprocess.DEVNULL, STDOUT=subprocess.STDOUT
    )


def _fork(words: Sequence[str], cwd: Path, environment: Mapping[str, str], streams: Sequence[IO[str]]) -> int:
    """Fork into a command whose stdin, stdout and stderr are given; its process id."""
    pid = os.fork()
    if not pid:
        for number, stream in enumerate(streams):
            os.dup2(stream.fileno(), number)
        for pipe in _pipes:
            if not pipe.closed:
                os.close(pipe.fileno())
        _be(words, cwd, environment)
    return pid


def _be(words: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> NoReturn:
    """In the fork: be the command, and nothing of the test that has started it."""
    code = 1
    try:
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(os.dup(number), mode, encoding="utf-8") for number, mode in enumerate("rww")
        )
        logging.root.handlers.clear()  # pytest's
        logging.root.setLevel(logging.WARNING)
        torch.set_num_threads(1)  # those of another number died with the fork
        os.environ |= environment
        os.chdir(cwd)
        _main(words)()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else end.code is not None
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _main(words: Sequence[str]) -> Callable[[], object]:
    """What Python runs, whose arguments are set."""
    if words[0] == "-m":
        sys.argv = [*words[1:]]
        return lambda: runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    if words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        return lambda: exec(words[1], {"__name__": "__main__"})
    sys.argv = [str(ROOT / words[0]), *words[1:]]
    return lambda: runpy.run_path(sys.argv[0], run_name="__main__")

"""Ctrl-C and SIGTERM: a command ends at once, with one line and exit code 130 or 143, and leaves nothing half-written.

The process ends inside the signal's handler. An exception would have to find its way out first: any ``except:`` on the
way swallows it, a destructor prints and forgets it, and a library's cleaning up stumbles over it. What is on the disk
has to be whole at any moment all the same, because a SIGKILL asks nobody; see ``ldm.writing``.

Only the standard library is imported here, and this before anything that takes time.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

STOPS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


class Wish:
    """To stop as soon as it can be done in order: ``number`` is the signal that asked for it, 0 without any."""

    number = 0

    @property
    def exit_code(self) -> int:
        """Of a process that stops because of it; as after a Ctrl-C where it was another process that got the signal."""
        return 128 + (self.number or signal.SIGINT)


class _Process:
    """What this process is doing when a signal comes."""

    listens = False  # for good: it is a command
    ended = False  # all that is left is to leave
    wish: Wish | None = None  # where a first signal is noted
    said = ""  # and what is said then
    unfinished: dict[str, bool] = {}  # noqa: RUF012 folders that nobody will want, or only with something in them


def listen() -> None:
    """From now on a signal ends this process, which is a command and nothing else."""
    if not _Process.listens:
        _Process.listens = True
        os.register_at_fork(after_in_child=_as_helper)
        atexit.register(_ignore)  # what is registered first comes last
    _install()


def is_command() -> bool:
    """Whether this process is a command and nothing else."""
    return _Process.listens


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """A block that a signal ends together with the process. In a command, what comes after it is the way out."""
    if _Process.listens:
        try:
            yield
        finally:
            _Process.ended = True
        return
    with _handled():
        yield


@contextlib.contextmanager
def postponed(said: str) -> Iterator[Wish]:
    """A block in which the first signal is only noted in what is yielded; the second one ends the process.

    Args:
        said: a line for the first one.
    """
    before = _Process.wish, _Process.said
    _Process.wish, _Process.said = Wish(), said
    try:
        with _handled():
            yield _Process.wish
    finally:
        _Process.wish, _Process.said = before


@contextlib.contextmanager
def removed_on_stop(folder: str | os.PathLike[str], only_empty: bool = False) -> Iterator[None]:
    """A block during which a folder (only while it is empty, if so) is of no use to anybody if the process has to end.

    What began last is removed first.
    """
    _Process.unfinished[str(folder)] = only_empty
    try:
        yield
    finally:
        _Process.unfinished.pop(str(folder), None)


@contextlib.contextmanager
def _handled() -> Iterator[None]:
    """Our handlers for a while; others that were installed in between, and have gone again, stay gone."""
    if threading.current_thread() is not threading.main_thread():  # only that one may have handlers
        yield
        return
    before = _install()
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) == _on_signal:
                signal.signal(number, _on_signal if _Process.listens else handler or signal.SIG_DFL)


def _install() -> dict[int, Any]:
    return {number: signal.signal(number, _on_signal) for number in STOPS}


def _ignore() -> None:
    """Nothing is left but Python's own end, which gives other handlers up: a signal would be an odd exit code."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)


def _on_signal(number: int, frame: FrameType | None) -> None:
    if _Process.ended:
        _Process.ended = False  # if it takes too long, a second one helps
    elif _Process.wish is not None and not _Process.wish.number:
        _Process.wish.number = number
        if _is_first():
            _say(_Process.said)
    else:
        leave(number)


def leave(number: int) -> NoReturn:
    """End this process because of a signal: without what is unfinished, and without the processes that help it."""
    try:
        _remove_unfinished()
        # where it is being imported just now, it is not complete
        helpers = getattr(sys.modules.get("multiprocessing.process"), "active_children", list)
        for helper in helpers():
            helper.terminate()
        with contextlib.suppress(RuntimeError, OSError, ValueError):  # it was interrupted while it wrote, or is closed
            sys.stdout.flush()
        if _is_first():
            _say(STOPS[signal.Signals(number)])
    finally:
        os._exit(128 + number)


def heed_parent_alone() -> None:
    """In a process that helps another: only its parent ends it.

    Terminals and batch systems send a signal to all processes of a command; a training that finishes its step first,
    and saves, needs its helpers until then. (macOS does not tell who sent a SIGTERM: there it still ends this process.)
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_by, args=(os.getppid(),), daemon=True).start()


def _end_by(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:  # which may be gone meanwhile
        pass
    os._exit(0)


def _is_first() -> bool:
    """Of the processes of a distributed run, the one that speaks for all."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _remove_unfinished() -> None:
    for folder, only_empty in reversed(list(_Process.unfinished.items())):
        if not only_empty:
            sys.modules["shutil"].rmtree(folder, ignore_errors=True)  # whoever makes such folders has it
        with contextlib.suppress(OSError):
            os.rmdir(folder)  # noqa: PTH106


def _say(text: str) -> None:
    """A line on stderr, below what shows the progress; not by a stream, which may be in the middle of writing."""
    tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
    below = os.isatty(2) or list(getattr(tqdm, "_instances", ()))
    with contextlib.suppress(OSError):
        os.write(2, f"{chr(10) if below else ''}{text}\n".encode())


def _as_helper() -> None:
    """In a forked process: it is its parent that is asked to stop, and that sees to what is unfinished."""
    _Process.unfinished.clear()
    _Process.listens = _Process.ended = False
    _Process.wish = None
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

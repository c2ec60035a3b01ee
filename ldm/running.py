"""How a command runs: its errors are sentences, its exit codes mean something. It imports next to nothing."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import select
import sys
import threading
import traceback
from collections.abc import Callable, Iterator

from ldm.building.errors import UserError, printable
from ldm.building.trust import FLAG, VARIABLE
from ldm.stopping import is_command, listening

EXIT_BAD_INPUT = 2
EXIT_UNREAD = 141  # as of a program that SIGPIPE ends


def run_command(main: Callable[[], object], debug: bool | None = None) -> None:
    """Run a command's ``main``: bad input ends with one sentence on stderr and exit code 2; a signal with 130 or 143;
    a reader that has gone (``| head -1``), quietly, with 141.

    ``--debug`` among the arguments (or ``debug=True``) shows the traceback as well; ``--trust_config`` lets
    configurations that were found take foreign classes, in this process and in those that it starts.
    """
    atexit.register(gc.freeze)  # or Python looks for cycles among all of torch's objects at the end: half a second
    debug = "--debug" in sys.argv if debug is None else debug
    if FLAG in sys.argv:
        sys.argv.remove(FLAG)
        os.environ[VARIABLE] = "1"
    with listening(), contextlib.nullcontext() if debug else _threads_in_a_line():
        try:
            _printed(main)
        except BrokenPipeError:
            if not _silence_unread():
                raise
            sys.exit(EXIT_UNREAD)
        except (UserError, OSError) as error:
            if debug:
                traceback.print_exc()
            sys.stderr.write(f"error: {_sentence(error)}\n")
            sys.exit(EXIT_BAD_INPUT)
        except KeyboardInterrupt:  # raised by a program that calls this one
            sys.stderr.write("interrupted\n")
            sys.exit(130)


def _printed(main: Callable[[], object]) -> None:
    """Run ``main`` and see what it prints out to the pipe."""
    try:
        main()
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()


def _silence_unread() -> bool:
    """Throw away what is still to be said to a pipe whose reader has gone (``| head -1``); whether there is one."""
    found = False
    for stream in (1, 2):
        asked = select.poll()
        asked.register(stream, select.POLLERR)
        if any(event & select.POLLERR for _, event in asked.poll(0)):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
            found = True
    return found


@contextlib.contextmanager
def _threads_in_a_line() -> Iterator[None]:
    """A thread that cannot write (a logger's, whose folder is gone) ends with a sentence; in a command, for good."""
    before = threading.excepthook

    def ended(about: threading.ExceptHookArgs) -> None:
        if isinstance(about.exc_value, OSError):
            sys.stderr.write(f"warning: {_sentence(about.exc_value)}\n")
        else:
            before(about)

    threading.excepthook = ended
    try:
        yield
    finally:
        if not is_command():
            threading.excepthook = before


def _sentence(error: UserError | OSError) -> str:
    """An error of the file system comes without one: a name that is too long, a folder that may not be read."""
    if isinstance(error, OSError) and error.filename is not None:
        return printable(f"cannot use '{os.fsdecode(error.filename)}': {error.strerror}")
    return printable(error)

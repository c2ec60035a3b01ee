"""Files that are whole or not there: the one place that writes them, and that clears what killed processes have left.

A file grows in a folder ``.ldm-*.part`` beside its place, in which its writer holds a lock, and is renamed when it is
complete and on the disk. Whoever writes into a place next removes those folders whose lock nobody holds any more: the
system lets go of a lock when a process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from ldm.building.errors import UserError
from ldm.stopping import removed_on_stop

if sys.platform != "win32":
    import fcntl

FRONT, END, LOCK = ".ldm-", ".part", ".lock"
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES)

_cleared: set[Path] = set()  # folders, by this process


class TakenError(FileExistsError):
    """There is something at a place that had to be free."""


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], new: bool = False) -> Iterator[Path]:
    """Yield a temporary path; on success what was written there is put at ``path`` in one step, on failure it is gone.

    Args:
        path: the place; its folder is made where it is missing.
        new: the place must be free, and stays its first taker's.

    Raises:
        UserError: the disk is full or the folder cannot be written; an older file at ``path`` survives.
        TakenError: with ``new``, there is something at ``path``, which survives.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent not in _cleared:
            _cleared.add(path.parent)
            clear_leftovers(path.parent)
        with _own_folder(path.parent) as folder:
            temporary = folder / path.name
            temporary.touch()
            yield temporary
            _to_disk(temporary)
            if new:
                _place(temporary, path)
            else:
                temporary.replace(path)
            _to_disk(path.parent)
    except TakenError:
        raise
    except OSError as error:
        raise UserError(f"cannot write '{path}': {error.strerror or error}; nothing was changed there") from error


def clear_leftovers(*folders: str | os.PathLike[str]) -> None:
    """Remove what processes that were killed in the middle of a file have left in folders (those below aside)."""
    for folder in folders:
        for part in Path(folder).glob(f"{FRONT}*{END}"):
            with contextlib.suppress(OSError):
                _clear(part)


def _clear(part: Path) -> None:
    """Remove one such folder, unless its writer lives, or it is not one of ours."""
    if part.is_symlink():
        return
    inside = {path.name for path in part.iterdir()}
    if inside and LOCK not in inside:
        return
    with _locked(part / LOCK, wait=False) as held:
        if held:
            shutil.rmtree(part)


@contextlib.contextmanager
def _own_folder(parent: Path) -> Iterator[Path]:
    """A new folder that is locked, and gone after the block."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=FRONT, suffix=END, dir=parent))
        with removed_on_stop(folder), contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            try:
                stack.enter_context(_locked(folder / LOCK, wait=True))
            except FileNotFoundError:  # somebody who clears was faster than the lock
                continue
            if (folder / LOCK).exists():
                yield folder
                return


@contextlib.contextmanager
def _locked(path: Path, wait: bool) -> Iterator[bool]:
    """Hold a lock on a file, which is made; whether it is held: a file system may have none, and others may hold it."""
    with path.open("a") as file:
        try:
            if sys.platform == "win32":
                yield False
                return
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            held = False
        else:
            held = True
        yield held


def _to_disk(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, would survive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS, errno.EBADF):  # not for folders everywhere
            raise
    finally:
        os.close(handle)


def _place(temporary: Path, path: Path) -> None:
    """Put a file at a free place.

    Raises:
        TakenError: it is not.
    """
    try:
        path.hardlink_to(temporary)
    except FileExistsError as error:
        raise TakenError(errno.EEXIST, "there is a file", str(path)) from error
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        try:
            path.touch(exist_ok=False)  # a file system without links: the place is taken first
        except FileExistsError as taken:
            raise TakenError(errno.EEXIST, "there is a file", str(path)) from taken
        temporary.replace(path)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that is gone after the block, and when a signal ends the process in it."""
    with tempfile.TemporaryDirectory() as folder, removed_on_stop(folder):
        yield Path(folder)


def check_there(paths: Iterable[Path]) -> None:
    """Claim nothing that is not there.

    Raises:
        UserError: files that have been written are gone.
    """
    paths = list(paths)
    gone = len(paths) - len({path for path in paths if path.is_file()})  # a place that was freed may be taken again
    if gone:
        folder = paths[0].parent
        raise UserError(f"{gone} of {len(paths)} files that were written into '{folder}' are not there any more")


def writable_folder(path: str | os.PathLike[str], what: str) -> Path:
    """A folder to write into, which may be made later; told before the work begins.

    What killed processes have left there is cleared.

    Args:
        path: the folder.
        what: the option that named it, for the message.

    Raises:
        UserError: it, or what it would lie in, is a file, may not be written, or has an impossible name.
    """
    path = Path(path)
    try:
        if "\0" in str(path):
            raise ValueError("its name holds a zero byte")
        there = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    except (OSError, ValueError) as error:
        raise UserError(f"{what}: '{path}' can be no folder: {getattr(error, 'strerror', None) or error}") from error
    if not there.is_dir():
        raise UserError(f"{what}: '{there}' is a file, so that results cannot be written into '{path}'")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{what}: the folder '{there}' may not be written")
    clear_leftovers(path)
    return path

"""Files are whole or not there, and what killed processes leave is cleared: theirs alone, and no living process's."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from ldm import writing
from ldm.checkpoint import save_state_dict
from ldm.util import TakenError, UserError, atomic_write, clear_leftovers
from tests.helpers import ROOT

WRITER = """
import os, sys, time
from ldm.util import atomic_write
with atomic_write(sys.argv[1]) as path:
    path.write_text("half")
    (path.parent / ".tmpAbCdEf").write_text("as safetensors has it")
    print("writing", flush=True)
    sys.stdin.read()
"""


def writer(path: Path) -> subprocess.Popen[str]:
    """A process in the middle of a file."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    return process


def test_what_a_killed_process_leaves_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    own = tmp_path / ".ldm-mine.part"
    own.mkdir()
    (own / "letter.txt").touch()  # somebody else's, whatever its name
    (tmp_path / ".tmpQwErTy").touch()
    killed, living = writer(tmp_path / "a.txt"), writer(tmp_path / "b.txt")
    assert len(list(tmp_path.glob(".ldm-*"))) == 3
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    clear_leftovers(tmp_path)
    assert len(list(tmp_path.glob(".ldm-*"))) == 2, "one writer lives"
    living.communicate("")
    assert living.returncode == 0 and (tmp_path / "b.txt").read_text() == "half"
    assert sorted(p.name for p in tmp_path.iterdir()) == [".ldm-mine.part", ".tmpQwErTy", "b.txt"]
    assert (own / "letter.txt").exists()


def test_the_next_writer_clears(tmp_path: Path) -> None:
    killed = writer(tmp_path / "a.txt")
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    with atomic_write(tmp_path / "c.txt") as path:
        path.write_text("whole")
    assert [p.name for p in tmp_path.iterdir()] == ["c.txt"]


@pytest.mark.parametrize("stage", ["nothing", "lock"])
def test_a_process_that_was_killed_before_it_wrote_leaves_nothing_either(stage: str, tmp_path: Path) -> None:
    part = tmp_path / ".ldm-abcdefgh.part"
    part.mkdir()
    if stage == "lock":
        (part / ".lock").touch()
    clear_leftovers(tmp_path, tmp_path / "nowhere")
    assert not part.exists()


def test_files_are_on_the_disk_before_they_have_their_name_and_their_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bool]] = []
    real = os.fsync

    def note(handle: int) -> None:
        synced.append((Path(f"/proc/self/fd/{handle}").readlink().name, (tmp_path / "a.txt").exists()))
        real(handle)

    monkeypatch.setattr(os, "fsync", note)
    with atomic_write(tmp_path / "a.txt") as path:
        path.write_text("x")
    assert synced == [("a.txt", False), (tmp_path.name, True)]


def test_weights_leave_no_temporary_files(tmp_path: Path) -> None:
    for suffix in (".safetensors", ".ckpt"):
        save_state_dict({"a": torch.ones(3)}, tmp_path / f"w{suffix}")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w.ckpt", "w.safetensors"]
    umask = os.umask(0)
    os.umask(umask)
    assert {p.stat().st_mode & 0o777 for p in tmp_path.iterdir()} == {0o666 & ~umask}


@pytest.mark.parametrize("links", [True, False])
def test_a_place_has_one_taker(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    if not links:
        monkeypatch.setattr(Path, "hardlink_to", refuse)
    outcomes: list[str] = []

    def take(text: str) -> None:
        try:
            with atomic_write(tmp_path / "a.txt", new=True) as path:
                path.write_text(text)
            outcomes.append(text)
        except TakenError:
            pass

    threads = [threading.Thread(target=take, args=(str(n),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 1 and (tmp_path / "a.txt").read_text() == outcomes[0]
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(UserError, match="No space left"), atomic_write(tmp_path / "a.txt") as path:
        path.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(UserError, match="cannot write"), atomic_write(tmp_path / "a.txt" / "b.txt", new=True):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


def test_whoever_clears_never_takes_a_folder_from_its_writer(tmp_path: Path) -> None:
    """Writers and clearers at once: a folder may be cleared before its lock, and its writer takes another one then."""
    stop = threading.Event()

    def clear() -> None:
        while not stop.is_set():
            clear_leftovers(tmp_path)

    clearer = threading.Thread(target=clear)
    clearer.start()
    try:
        for n in range(40):
            with writing.atomic_write(tmp_path / f"{n}.txt") as path:
                path.write_text(str(n))
    finally:
        stop.set()
        clearer.join()
    assert sorted(int(p.stem) for p in tmp_path.iterdir()) == list(range(40))

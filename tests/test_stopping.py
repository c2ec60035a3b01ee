"""Ctrl-C and SIGTERM: one line, exit code 130 or 143, at once, whatever is going on; nothing half-written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.kills import kills, listens
from ldm import stopping
from tests.helpers import ROOT

CODES = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "terminated")}
START = "import os, signal, sys, time; from ldm.stopping import *; listen()\n"


def start(*line: str) -> subprocess.Popen[str]:
    """A process of Python, from the moment that it handles signals."""
    process = subprocess.Popen(
        [sys.executable, *line], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while not listens(process.pid):
        time.sleep(0.002)
    return process


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize(
    "line", [["main.py"], ["txt2img.py"], ["run_styleid.py"], ["-m", "scripts.score"], ["-m", "benchmarks.fuzz"]],
    ids=lambda line: line[-1],
)  # fmt: skip
def test_while_a_command_is_imported(line: list[str], number: signal.Signals) -> None:
    process = start(*line, "--help")
    process.send_signal(number)
    output, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (CODES[number][0], CODES[number][1] + "\n") and not output


@pytest.mark.parametrize(
    "what",
    [
        "time.sleep(60)",
        "while True:\n  try: time.sleep(60)\n  except BaseException: pass",  # as some libraries do
        "class A:\n  def __del__(self): time.sleep(60)\na = A(); del a",
        "for name in ('multiprocessing', 'tqdm'): sys.modules[name] = type(sys)(name)\ntime.sleep(60)",  # half imported
        "import multiprocessing\nwith multiprocessing.Pool(1) as pool: pool.map(time.sleep, [60])",
        "import multiprocessing\ndef helper(): heed_parent_alone(); time.sleep(60)\n"
        "multiprocessing.Process(target=helper).start(); time.sleep(60)",
    ],
    ids=["sleep", "except", "destructor", "import", "pool", "helper"],
)
def test_whatever_is_going_on(what: str) -> None:
    process = start("-c", f"{START}print('now', flush=True)\n{what}")
    assert process.stdout is not None and process.stdout.readline() == "now\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=20) == ("", "terminated\n"), "no helper keeps the pipes open"
    assert process.returncode == 143


def test_a_temporary_folder_is_gone_too() -> None:
    make = "from ldm.writing import *\nwith temporary_folder() as folder: print(folder, flush=True); time.sleep(60)"
    process = start("-c", START + make)
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    assert folder.is_dir()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 143 and not folder.exists()


@pytest.mark.parametrize("number", CODES)
def test_what_is_being_written_is_gone(number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    write = (
        "from ldm.writing import atomic_write\nwith atomic_write(sys.argv[1]) as path:\n"
        "  path.write_text('half'); print(path, flush=True); time.sleep(60)"
    )
    process = start("-c", START + write, str(tmp_path / "a.txt"))
    assert process.stdout is not None and Path(process.stdout.readline().strip()).read_text() == "half"
    process.send_signal(number)
    assert process.communicate(timeout=20)[1] == CODES[number][1] + "\n"
    assert process.returncode == CODES[number][0]
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


def test_a_first_signal_can_be_noted_and_a_second_ends() -> None:
    code = START + (
        "with postponed('soon') as wish:\n  print('now', flush=True)\n"
        "  while not wish.number: time.sleep(0.01)\n  print(wish.exit_code, flush=True); time.sleep(60)"
    )
    process = start("-c", code)
    assert process.stdout is not None and process.stdout.readline() == "now\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "143\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20)[1] == "soon\ninterrupted\n" and process.returncode == 130


def test_a_command_that_is_done_is_not_stopped_any_more() -> None:
    code = START + (
        "from ldm.running import run_command\nrun_command(lambda: print('done'))\n"
        "class Last:\n  def __del__(self, kill=os.kill, me=os.getpid()): kill(me, 2), kill(me, 15)\n"
        "last = Last()\n"  # when Python itself ends
        "os.kill(os.getpid(), signal.SIGINT); time.sleep(0.1)"
    )
    process = start("-c", code)
    assert process.communicate(timeout=20) == ("done\n", "") and process.returncode == 0


@pytest.mark.parametrize(
    "what",
    ["for i in range(100000): print(i)", "print(1, flush=True); time.sleep(0.5); print(2)",
     "print(1, flush=True); time.sleep(0.5); print(2); sys.exit(0)",
     "print(1, flush=True); time.sleep(0.5); print(2); raise UserError('wrong')"],
    ids=["at once", "at the end", "help", "wrong"],
)  # fmt: skip
def test_a_reader_that_has_gone_is_no_error(what: str) -> None:
    code = f"from ldm.running import *\ndef main():\n  {what}\nrun_command(main)"
    process = start("-c", START + code)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait(timeout=20) == 141


def test_the_end_of_a_command_does_not_wait_for_a_search_for_cycles() -> None:
    """Python would go through all of torch's objects; here an object that only that would find tells of it."""
    cycle = (
        "class Ring:\n  def __init__(self): self.it = self\n  def __del__(self): print('found', flush=True)\n"
        "import gc; gc.disable(); keep = Ring()\n"
    )
    for line, said in (("pass", "found\n"), ("from ldm.running import run_command; run_command(lambda: None)", "")):
        run = [sys.executable, "-c", f"{cycle}{line}\ndel keep"]
        done = subprocess.run(run, cwd=ROOT, text=True, capture_output=True, check=True)
        assert done.stdout == said, line


def test_another_pipe_that_breaks_is_not_hidden() -> None:
    main = "from ldm.running import *\ndef main():\n  r, w = os.pipe(); os.close(r); os.write(w, b'x')\n"
    process = start("-c", f"{START}{main}run_command(main)")
    assert process.communicate(timeout=20)[1].endswith("BrokenPipeError: [Errno 32] Broken pipe\n")


def test_a_helper_is_ended_by_its_parent_alone() -> None:
    """What a terminal or a batch system sends to all processes of a command leaves it its helpers for the last step."""
    code = START + (
        "pid = os.fork()\nif not pid:\n  heed_parent_alone(); os.write(1, b'now\\n'); time.sleep(60)\n"
        "os.write(1, b'%d\\n' % pid); sys.stdin.readline(); os.kill(pid, 15); print(os.waitpid(pid, 0)[1], flush=True)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, text=True, stdin=-1, stdout=-1)
    assert process.stdout is not None
    lines = {process.stdout.readline().strip() for _ in range(2)}
    helper = int((lines - {"now"}).pop())
    for number in CODES:
        os.kill(helper, number)
    time.sleep(0.3)
    os.kill(helper, 0)  # it is there
    assert process.communicate("go on\n", timeout=20)[0] == "0\n"


def test_a_program_that_uses_this_one_keeps_its_own_handlers() -> None:
    before = [signal.getsignal(number) for number in CODES]
    with stopping.listening(), stopping.postponed("soon") as wish:
        os.kill(os.getpid(), signal.SIGTERM)
        assert wish.number == signal.SIGTERM and wish.exit_code == 143
    assert [signal.getsignal(number) for number in CODES] == before


def test_killed_commands_go_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """A few of the sixty of ``python -m benchmarks.kills``."""
    (tally,) = kills(3, ["words"], seed=3, place=tmp_path, fresh=0).values()
    assert tally.wrong == [] and tally.equal == 3
    assert set(tally.signals) == {"SIGKILL", "SIGINT", "SIGTERM"}

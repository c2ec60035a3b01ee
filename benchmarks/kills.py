"""Kill commands at random moments, let them go on, and compare with what nobody disturbed.

    python -m benchmarks.kills --kills 60

KILL, INT and TERM reach training, learned words, StyleID, txt2img and an aligner at moments that are drawn evenly from
their first line to their end. Moments are counted in a run's own processor time, so that a busy machine changes
nothing; a signal that comes too late is no kill, and another run gets another one. Then the run is resumed, or the same
command is given again. In the end the result must be the undisturbed one to the last bit, no temporary file may be
left, a signal's exit code must be 130 or 143 (0 when all had been done), and no traceback may have been printed. The
same seed draws the same moments.

Most runs are forks of this process, which has imported what they need, so that a moment is seldom one of the imports;
every sixth run is a process of its own. Linux only.
"""

from __future__ import annotations

import importlib
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import torch

from benchmarks.kills_commands import COMMANDS, Command, prepare
from ldm import stopping
from ldm.arguments import Parser
from ldm.shipped import ROOT
from ldm.util import UserError, run_command, temporary_folder

SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
FRESH = 6  # one run in so many is a process of its own
SECOND = 0.2  # of the signals that can be caught come twice
LIMIT = 300.0  # seconds, for one run
# What commands import when they are asked to work.
IMPORTS = ("ldm.training.launch", "ldm.training.loss_curve", "ldm.models.diffusion.ddpm", "ldm.models.aligner",
           "ldm.workflows.txt2img", "ldm.workflows.restyle.styleid", "ldm.data.personalized", "ldm.world.scenes",
           "matplotlib.figure", "torch.utils.tensorboard", "pytorch_lightning.loggers")  # fmt: skip


@dataclass
class Ended:
    """How a run ended: exit code, processor time, seconds from a signal (None: it came too late), and what it said."""

    code: int
    used: float
    wait: float | None
    said: str


@dataclass
class Tally:
    """What came of the kills of one command."""

    signals: Counter[str] = field(default_factory=Counter)
    codes: Counter[int] = field(default_factory=Counter)
    equal: int = 0
    wait: float = 0.0
    late: int = 0
    wrong: list[str] = field(default_factory=list)


def start(command: Command, arguments: Sequence[str], folder: Path, fresh: bool) -> int:
    """Start a command that writes into a folder, and wait until its handlers of signals are there; its process id."""
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    log = (folder / "log").open("wb")
    environment = {"TMPDIR": str(folder / "tmp"), "OMP_NUM_THREADS": "1"}
    if fresh:
        line = [sys.executable, command.file, *arguments]
        child = subprocess.Popen(line, cwd=ROOT, env={**os.environ, **environment}, stdout=log, stderr=log)
        child.returncode = 0  # it is waited for by its number
        pid = child.pid
    else:
        pid = os.fork()
        if pid == 0:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            os.environ.update(environment)
            tempfile.tempdir = None
            be_command(command, arguments)
    log.close()
    while not listens(pid):
        time.sleep(0.002)
    return pid


def be_command(command: Command, arguments: Sequence[str]) -> NoReturn:
    """In a fork: be the command, to the end."""
    stopping.listen()
    code = 1
    try:
        torch.set_num_threads(1)
        os.chdir(ROOT)
        sys.argv = [command.file, *arguments]
        importlib.import_module(f"ldm.commands.{command.module}").command()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def listens(pid: int) -> bool:
    """Whether a process has a handler for SIGTERM, or is no more."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return True
    caught = next((int(line.split()[1], 16) for line in lines if line.startswith("SigCgt")), 0)
    return bool(caught >> (signal.SIGTERM - 1) & 1) or any(line.startswith("State:\tZ") for line in lines)


def processor_time(pid: int) -> float:
    """Seconds that a process has computed; that of one that has ended and is not waited for yet, too."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def finish(pid: int, folder: Path, kill: tuple[float, signal.Signals, bool] | None = None) -> Ended:
    """Wait for a process; send it a signal when it has computed for so many seconds since now, twice if so."""
    began, before = time.monotonic(), processor_time(pid)
    sent, used = 0.0, 0.0
    while True:
        used = processor_time(pid) - before
        done, status = os.waitpid(pid, os.WNOHANG)
        now = time.monotonic()
        if done:
            said = (folder / "log").read_text(errors="replace")
            return Ended(os.waitstatus_to_exitcode(status), used, now - sent if sent else None, said)
        if kill is not None and not sent and used >= kill[0]:
            os.kill(pid, kill[1])
            sent = now
        elif kill is not None and sent and kill[2] and now - sent >= 0.1:
            os.kill(pid, kill[1])
            kill = None
        elif now - began > LIMIT:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)


def whole(command: Command, folder: Path, inputs: Path, fresh: bool = False) -> Ended:
    """A run that nobody disturbs.

    Raises:
        UserError: it failed.
    """
    ended = finish(start(command, command.arguments(folder, inputs), folder, fresh), folder)
    if ended.code:
        raise UserError(f"the undisturbed run of {command.file} failed: {ended.said[-2000:]}")
    return ended


def left_behind(folder: Path) -> list[str]:
    """Temporary and empty files, wherever they are (a logger's own tables aside)."""
    found = [path for pattern in (".ldm-*", ".tmp*") for path in folder.rglob(pattern)]
    found += [path for path in folder.rglob("*") if path.is_file() and not path.stat().st_size and path.name != "log"]
    found += list((folder / "tmp").iterdir())
    return sorted({str(path.relative_to(folder)) for path in found if "metrics" not in path.parts})


def disturb(command: Command, folder: Path, inputs: Path, kill: tuple[float, signal.Signals, bool], fresh: bool,
            reference: dict[str, str], tally: Tally) -> bool:  # fmt: skip
    """One kill, and what becomes of it; whether the signal came in time."""
    ended = finish(start(command, command.arguments(folder, inputs), folder, fresh), folder, kill)
    if ended.wait is None:
        tally.late += 1
        return False
    moment = f"{kill[1].name} after {kill[0]:.2f} s{' (twice)' if kill[2] else ''}{' (own process)' if fresh else ''}"
    tally.signals[kill[1].name] += 1
    tally.codes[ended.code] += 1
    tally.wait = max(tally.wait, ended.wait)
    if ended.code not in (0, -9 if kill[1] == signal.SIGKILL else 128 + kill[1]):
        tally.wrong.append(f"{moment}: exit code {ended.code}: {ended.said[-1500:]}")
    if "Traceback" in ended.said:
        tally.wrong.append(f"{moment}: a traceback: {ended.said[-1500:]}")
    if ended.code:
        again = finish(start(command, command.going_on(folder, inputs), folder, False), folder)
        if again.code or "Traceback" in again.said:
            tally.wrong.append(f"{moment}: going on ended with {again.code}: {again.said[-1500:]}")
            return True
    found = command.results(folder)
    different = sorted(key for key in {*found, *reference} if found.get(key) != reference.get(key))
    left = left_behind(folder)
    tally.equal += not different
    if different:
        tally.wrong.append(f"{moment}: not the same: {', '.join(different)}")
    if left:
        tally.wrong.append(f"{moment}: left behind: {', '.join(left)}")
    return True


def kills(count: int, names: Sequence[str], seed: int, place: Path, fresh: int = FRESH) -> dict[str, Tally]:
    """Disturb commands in turn, ``count`` times in all.

    Args:
        fresh: one run in so many is a process of its own; 0 for none.
    """
    draw = random.Random(seed)
    for name in IMPORTS:
        importlib.import_module(name)
    inputs = place / "inputs"
    prepare(inputs)
    tallies = {name: Tally() for name in names}
    references: dict[str, tuple[dict[str, str], float, float]] = {}
    for name in names:
        lasts = whole(COMMANDS[name], place / f"{name}-whole", inputs).used
        alone = whole(COMMANDS[name], place / f"{name}-alone", inputs, fresh=True).used if fresh else 0.0
        references[name] = COMMANDS[name].results(place / f"{name}-whole"), lasts, alone
        print(f"{name} computes for {lasts:.1f} s, {alone:.1f} s on its own", file=sys.stderr, flush=True)
    for number in range(count):
        name = names[number % len(names)]
        reference, lasts, alone = references[name]
        own = bool(fresh) and number % fresh == fresh - 1
        number_of = SIGNALS[number // len(names) % len(SIGNALS)]
        for attempt in itertools.count():
            kill = draw.uniform(0, alone if own else lasts), number_of, draw.random() < SECOND
            folder = place / f"{name}-{number}-{attempt}"
            if disturb(COMMANDS[name], folder, inputs, kill, own, reference, tallies[name]):
                break
        done = f"{number + 1} of {count}: {name}, {number_of.name} after {kill[0]:.2f} s"
        print(f"{done}; {len(tallies[name].wrong)} wrong", file=sys.stderr, flush=True)
    return tallies


def table(tallies: dict[str, Tally]) -> str:
    """A row for each command."""
    rows = [f"{'':10} kills  KILL  INT  TERM   exit codes                    bit-equal  longest wait"]
    for name, tally in tallies.items():
        codes = " ".join(f"{code}:{count}" for code, count in sorted(tally.codes.items()))
        count = sum(tally.signals.values())
        each = [tally.signals[number.name] for number in SIGNALS]
        rows.append(f"{name:10} {count:5} {each[0]:5} {each[1]:4} {each[2]:5}   {codes:30} "
                    f"{tally.equal:3} of {count:<3} {tally.wait:9.2f} s")  # fmt: skip
    wrong = [f"{name}: {one}" for name, tally in tallies.items() for one in tally.wrong]
    count = sum(sum(tally.signals.values()) for tally in tallies.values())
    equal = sum(tally.equal for tally in tallies.values())
    return "\n".join([*rows, *wrong, f"{count} kills, {equal} bit-equal after going on, {len(wrong)} wrong"])


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--kills", type=int, default=60, help="how many in all")
    parser.add_argument("--only", nargs="+", choices=COMMANDS, default=list(COMMANDS), help="these commands")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", type=int, default=FRESH, metavar="N", help="one in N is its own process; 0: none")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    options = parser.parse_args()
    with temporary_folder() as place:
        tallies = kills(options.kills, options.only, options.seed, place, options.fresh)
    print(table(tallies))
    if any(tally.wrong for tally in tallies.values()):
        sys.exit(1)


if __name__ == "__main__":
    run_command(main)

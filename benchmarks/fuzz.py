"""Damage files of all kinds in many ways, and see that each is read or ends with one sentence and exit code 2.

    python -m benchmarks.fuzz --mutations 2000

Nothing that a file names may run, no traceback may appear, and no file may take long or much memory. The same seed
damages the same files in the same ways.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import random
import resource
import signal
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from benchmarks.fuzz_kinds import KINDS, KindOfFile
from ldm.arguments import Parser
from ldm.util import run_command, temporary_folder

SECONDS = 30  # of computing, for one file: a busy machine changes nothing
HANGS = 20 * SECONDS  # by the clock: it waits for something that does not come
TRACE = "trace"  # a file that no run may leave behind

_HOSTILE_TEXT = (
    "[" * 3000, "{a: " * 300, "9" * 12_000, "1e999", "-1", "0", "true", "null", ".nan", "2020-01-01", "''", "\x00",
    "\x1b[31m", "\u202e", "${oc.env:HOME}", "${oc.env:SECRET}", "${a.b}", "1000000000", "[1, 2]", "{a: 1}", "'x'", '"',
    ",", "\n", "\r", "\u2028", "\ufeff", "os.system", "subprocess.Popen", "builtins.exec", "torch.hub.load",
    "x" * 200_000, "!!python/object/apply:os.system [touch trace]", "&a [*a]", "- ", ": ", "../../x", "n" * 5000,
)  # fmt: skip
_HOSTILE_BYTES = (
    b"\xff" * 8, b"\x00" * 64, b"\x7f\xff\xff\xff", b"cos\nsystem\n(S'touch trace'\ntR.", b"\x80\x04\x95",
    b"PK\x03\x04", b"\x8c\x02os\x8c\x06system\x93\x8c\x0btouch trace\x85R.", b"(lp0\n", b"h\x00", b"}", b"]" * 50,
    b"\x8b\xff\xff\x00\x00", b"NaN", b"{" * 2000, b"1" * 6000, b"IHDR", b"zTXt", b"\x93NUMPY",
)  # fmt: skip


_ODD_VALUES: tuple[Any, ...] = (
    0, -1, 1, 2.5, 10**9, 10**30, 1e308, -1e-300, float("nan"), True, False, None, "", "x", "1", "\x1b[0m", [], [1],
    [[]], {}, {"a": 1}, [None], ["x"] * 20, "os.system", "torch.load", "torch.nn.Linear", [1, "x"], [0, 0],
    {"target": "os.system", "params": {"command": "touch trace"}}, {"target": 3}, {"target": ["a"]}, {"target": None},
    {"target": "subprocess.Popen", "params": {"args": ["touch", "trace"]}}, {"target": "torch.nn.Identity"},
)  # fmt: skip


@dataclass
class Result:
    """What came of the files of one kind."""

    outcomes: Counter[str] = field(default_factory=Counter)  # read, refused
    wrong: list[str] = field(default_factory=list)  # descriptions of what should not have been
    seconds: float = 0.0


def mutated(data: bytes, is_text: bool, draw: random.Random) -> bytes:
    """The contents with one to four changes: bits, bytes, cuts, repetitions, and pieces that attackers write."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        size = max(1, len(changed))
        start = draw.randrange(size)
        stop = min(size, start + draw.choice((1, 2, 8, 64)))
        way = draw.randrange(8)
        if way == 0 and changed:
            changed[start % len(changed)] ^= 1 << draw.randrange(8)
        elif way == 1 and changed:
            changed[start % len(changed)] = draw.randrange(256)
        elif way == 2:
            del changed[start:stop]
        elif way == 3:
            changed[start:start] = changed[start:stop] * draw.choice((1, 2, 50))
        elif way == 4:
            del changed[start:]
        elif way == 5 and is_text:
            begin, end = _word(changed, start)
            changed[begin:end] = draw.choice(_HOSTILE_TEXT).encode()
        else:
            piece = draw.choice(_HOSTILE_TEXT).encode() if is_text else draw.choice(_HOSTILE_BYTES)
            changed[start : start if draw.random() < 0.5 else stop] = piece
    return bytes(changed)


def with_odd_value(data: bytes, draw: random.Random) -> bytes:
    """A YAML or JSON document with one or two of its values replaced; nothing changes where it is neither."""
    try:
        document = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError):
        return data
    for _ in range(draw.choice((1, 1, 2))):
        places = [place for place in _places(document) if draw.random() < 0.7]
        if places:
            parent, key = draw.choice(places)
            parent[key] = copy.deepcopy(draw.choice(_ODD_VALUES))
    return json.dumps(document).encode()


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a document with each of its keys or indices."""
    pairs: list[tuple[Any, Any]] = []
    if isinstance(document, (dict, list)):
        pairs = list(document.items() if isinstance(document, dict) else enumerate(document))
    for key, value in pairs:
        yield document, key
        yield from _places(value)


def _word(data: bytearray, place: int) -> tuple[int, int]:
    """Where the value around a place begins and ends."""
    ends = b" ,:[]{}\n\"'"
    begin, end = min(place, len(data)), min(place, len(data))
    while begin > 0 and data[begin - 1] not in ends:
        begin -= 1
    while end < len(data) and data[end] not in ends:
        end += 1
    return begin, end


def run_kind(name: str, count: int, seed: int = 0) -> Result:
    """Damage files of one kind ``count`` times.

    Args:
        name: one of ``benchmarks.fuzz_kinds.KINDS``.
        count: how many damaged files.
        seed: of what is done to them.
    """
    kind, result, start = KINDS[name], Result(), time.perf_counter()
    with temporary_folder() as folder, _quiet(folder):
        originals = list(kind.make(Path(folder)).items())
        for number in range(count):
            draw = random.Random(f"{name} {seed} {number}")
            file, data = originals[number % len(originals)]
            place = Path(folder) / f"case{number}"
            place.mkdir()
            if number >= len(originals):
                structured = kind.is_document and draw.random() < 0.7
                data = with_odd_value(data, draw) if structured else mutated(data, kind.is_text, draw)
            (place / file).write_bytes(data)
            problem = _try(kind, place / file, result.outcomes)
            if number < len(originals) and result.outcomes["read"] <= number:
                problem = f"the undamaged file was not read {problem}"
            if any((Path(folder) / where / TRACE).exists() for where in (".", place.name)):
                problem = "it ran something"
            if problem:
                result.wrong.append(f"{name} {number} (seed {seed}), {file}: {problem}")
    result.seconds = time.perf_counter() - start
    return result


def _try(kind: KindOfFile, path: Path, outcomes: Counter[str]) -> str:
    """Read a file as a command would; what is wrong with how that ended or how long it took, or nothing."""
    with _limit() as late:
        problem = _read(kind, path, outcomes)
    return late[0] if late else problem


def _read(kind: KindOfFile, path: Path, outcomes: Counter[str]) -> str:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            run_command(lambda: kind.read(path), debug=False)
    except SystemExit as end:
        outcomes["refused"] += 1
        text = said.getvalue()
        if end.code != 2:
            return f"exit code {end.code}"
        lines = text.splitlines()
        right = len(lines) == 1 and lines[0].startswith("error: ") and lines[0].isprintable() and len(text) < 1500
        return "" if right else f"not one sentence: {text[:300]!r}"
    except BaseException as error:
        return f"traceback: {traceback.format_exc(limit=-3)}" if not isinstance(error, KeyboardInterrupt) else "stopped"
    outcomes["read"] += 1
    return ""


@contextlib.contextmanager
def _limit() -> Iterator[list[str]]:
    """Ends what takes too long; what is yielded says so afterwards, whatever has become of the error on its way."""
    problems: list[str] = []

    def late(number: int, frame: FrameType | None) -> None:
        problems.append(f"it took longer than {SECONDS} s of computing, or {HANGS} s by the clock")
        raise RuntimeError(problems[-1])

    timers = ((signal.ITIMER_PROF, signal.SIGPROF, SECONDS), (signal.ITIMER_REAL, signal.SIGALRM, HANGS))
    before: list[Any] = [signal.signal(number, late) for _, number, _ in timers]
    for timer, _, seconds in timers:
        signal.setitimer(timer, seconds)
    try:
        yield problems
    finally:
        for (timer, number, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


@contextlib.contextmanager
def _quiet(folder: Path) -> Iterator[None]:
    """Neither warnings nor logs; in the folder, where a program that ran would leave its trace."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.chdir(folder):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=2000, help="damaged files of all kinds together (2000)")
    parser.add_argument("--seed", type=int, default=0, help="of what is done to them (0)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="only these")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args()
    wrong: list[str] = []
    for name in options.kinds:
        result = run_kind(name, -(-options.mutations // len(options.kinds)), options.seed)
        wrong += result.wrong
        read, refused = result.outcomes["read"], result.outcomes["refused"]
        counts = f"{read:5} read {refused:5} refused {len(result.wrong):3} wrong"
        print(f"{name:12}{counts} {result.seconds:6.1f} s", flush=True)
    for line in wrong:
        print(line)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{options.mutations} mutations, seed {options.seed}: {len(wrong)} wrong; at most {peak:.2f} GB of memory")
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()

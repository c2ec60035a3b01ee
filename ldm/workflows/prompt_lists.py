"""One line that stands for many prompts: ``a | b``, combinations of parts, ``{a|b}``, and lines of wildcard files.

As in the web UI and its extension Dynamic Prompts: ``__colour__`` is one line of ``colour.txt`` in the folder of
wildcards, ``{red|blue}`` one of these. Which, is a function of the picture's seed.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from ldm.draws import choose
from ldm.texts import read_lines
from ldm.util import UserError, nearest, printable

FOLDER = "wildcards"
MOST = 100  # choices in one prompt
MOST_PARTS = 10  # that a prompt is combined from
_SIGNS = re.compile(r"\\.|[()\[\]{}<>|]", re.DOTALL)
_CHOICE = re.compile(r"\{([^{}]*\|[^{}]*)\}")
_FILE = re.compile(r"__([\w\-][\w\-./ ]*?)__")


def several(text: str) -> list[str]:
    """The prompts that ``|`` parts, outside of any brackets; ``\\|`` is the sign itself. One prompt stays as it is."""
    parts, start, depth = [], 0, 0
    for sign in _SIGNS.finditer(text):
        if sign[0] == "|" and depth == 0:
            parts.append(text[start : sign.start()])
            start = sign.end()
        elif sign[0] in "([{<":
            depth += 1
        elif sign[0] in ")]}>":
            depth = max(0, depth - 1)
    parts.append(text[start:])
    if len(parts) == 1:
        return [text.replace("\\|", "|")]
    return [part.strip().replace("\\|", "|") for part in parts if part.strip()] or [""]


def combinations(text: str) -> list[str]:
    """The first part that ``|`` parts with every choice of the others, by commas: 2^n prompts, as the web UI's matrix.

    Raises:
        UserError: they are over a thousand.
    """
    first, *others = several(text)
    if len(others) > MOST_PARTS:
        raise UserError(f"--prompt_matrix of {len(others)} optional parts would be {2 ** len(others)} prompts")
    chosen = itertools.product((False, True), repeat=len(others))
    rows = [[part for part, taken in zip(others, reversed(row), strict=True) if taken] for row in chosen]
    return [", ".join([first, *row]) for row in rows]


def expanded(text: str, seed: int, folder: str | None = None) -> str:
    """A prompt with each choice in it made, the innermost first.

    Args:
        seed: of the picture.
        folder: of the wildcard files.

    Raises:
        UserError: a file is missing or empty, or lines call each other without end.
    """
    place, drawn = Path(folder or FOLDER), 0
    while found := _CHOICE.search(text) or _FILE.search(text):
        if drawn >= MOST:
            raise UserError(f"the wildcards of the prompt call each other without end: '{printable(text[:80])}'")
        is_choice = found.re is _CHOICE
        options = [part.strip() for part in found[1].split("|")] if is_choice else lines_of(found[1], place)
        number = int(choose(seed, drawn, "prompt", len(options))[0])
        text = text[: found.start()] + options[number] + text[found.end() :]
        drawn += 1
    return text


def lines_of(name: str, folder: Path) -> list[str]:
    """The lines of a wildcard file; those that begin with ``#`` are remarks.

    Raises:
        UserError: there is no such file in the folder, or it is empty.
    """
    path = folder / f"{name}.txt"
    inside = ".." not in Path(name).parts and not Path(name).is_absolute()
    if not inside or not path.is_file():
        known = sorted(p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.txt"))
        near = nearest(name, known).replace("it has", "there are") if known else "--wildcards names another folder"
        raise UserError(f"'__{printable(name)}__' in the prompt is a line of '{printable(path)}': no such file; {near}")
    lines = [line for line in read_lines(path, "wildcard file") if not line.startswith("#")]
    if not lines:
        raise UserError(f"the wildcard file '{path}' is empty")
    return lines

"""The errors that a person is meant to read, and how a stranger's text is shown in them."""

from __future__ import annotations

import re
import unicodedata

LINE = 240  # letters of a stranger's text that a message shows
MESSAGE = 1200  # letters of a message
_LONG = re.compile(rf"\S{{{LINE + 1},}}|(?<!\w)'[^']{{{LINE + 1},}}'?")
_HIDING = frozenset(chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0xFEFF))
_FROM_WORKER = re.compile(r"^Caught \w+ in .*\n(?:.*\n)*?(?:[\w.]+Error: )(?P<sentence>.*)$")


def printable(text: object, limit: int = MESSAGE) -> str:
    """Text for a terminal: control characters as escapes, and of a long word or quotation its beginning and its end."""
    shown = str(text)
    if len(shown) > 8 * limit:  # nothing behind that could be shown, and looking at it would take time
        shown = shown[: 8 * limit]
    shown = _LONG.sub(lambda found: f"{found[0][: LINE // 2]}...{found[0][-LINE // 3 :]}", shown)
    shown = "".join(_escaped(letter) if _is_control(letter) else letter for letter in shown)
    return shown if len(shown) <= limit else shown[:limit] + "..."


def _is_control(letter: str) -> bool:
    return letter in _HIDING or unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


class UserError(Exception):
    """Something the user gave is wrong; the message is one sentence: what, where, and what would be right."""

    def __init__(self, message: object = "") -> None:
        text = str(message).strip()
        from_worker = _FROM_WORKER.match(text)  # torch's loader processes send their traceback along
        super().__init__(printable(from_worker["sentence"] if from_worker else text))


class ConfigError(UserError):
    """A configuration node cannot be turned into an object."""


class MissingPartError(UserError):
    """A known target that this project does not carry; the message says what is missing."""

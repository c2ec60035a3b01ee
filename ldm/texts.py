"""Text that people write: files in the encodings that editors save, lines, and what a command line may hold."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

from ldm.util import UserError

# the longer marks first: that of UTF-16 begins that of UTF-32
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip


def read_text(path: str | os.PathLike[str], what: str) -> str:
    """A text file, each line of it ended by LF.

    A byte-order mark says what encoding it is; without one it is UTF-8.

    Args:
        what: what the file is called in errors, such as "prompt file".

    Raises:
        UserError: the file is missing, in another encoding, or no text.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the {what} '{path}': {error.strerror or error}") from error
    encoding = next((name for mark, name in MARKS.items() if raw.startswith(mark)), "utf-8")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise UserError(
            f"the {what} '{path}' is not in UTF-8 (line {line}): save it as UTF-8, or as UTF-16 with a byte-order mark"
        ) from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise UserError(f"the {what} '{path}' is no text: line {line} has a NUL; save it as UTF-8")
    return text


def read_lines(path: str | os.PathLike[str], what: str) -> list[str]:
    """The lines of a text file without the spaces around them; blank ones are left out.

    Only line ends (LF, CRLF, CR) end a line.

    Raises:
        UserError: as ``read_text``.
    """
    return [line.strip() for line in read_text(path, what).split("\n") if line.strip()]


def check_text(text: str, what: str) -> str:
    """``text`` as it is, if it can be written down.

    Raises:
        UserError: it came from a command line that was not in UTF-8.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        shown = text.encode("utf-8", "replace").decode("utf-8")
        raise UserError(f"{what} is not in UTF-8 ('{shown}'): set the terminal to UTF-8, or use a file") from error
    return text

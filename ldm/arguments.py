"""Options of commands."""

from __future__ import annotations

import argparse
import re
from typing import Any, NoReturn

from ldm.util import nearest

_UNKNOWN = re.compile(r"unrecognized arguments: (?:.* )?(--[A-Za-z][^\s=]*)")


class Parser(argparse.ArgumentParser):
    """argparse's, whose help keeps the lines of the description, and which says what is wrong in one sentence.

    argparse prints every option before it, which hides the sentence; here a mistyped one brings the nearest there are.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, **options})

    def error(self, message: str) -> NoReturn:
        """Print a sentence and exit with 2."""
        unknown = _UNKNOWN.match(message)
        hint = f"; {nearest(unknown[1], self._option_string_actions)}" if unknown else ""
        self.exit(2, f"error: {message}{hint} (--help tells all options)\n")

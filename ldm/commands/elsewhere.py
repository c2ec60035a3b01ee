"""Commands of the original repositories that are something else here: one sentence says what."""

from __future__ import annotations

import shlex
import sys

from ldm.building.errors import UserError
from ldm.running import run_command


def page(program: str) -> None:
    """End as a page of Stable Diffusion 2 that was called with a YAML and a checkpoint: the command does its work."""
    files = [name for name in sys.argv[1:] if not name.startswith("-")]
    flags = [word for pair in zip(("--config", "--ckpt"), files, strict=False) for word in pair]
    says(f"this page is a command here: {shlex.join(['python', program, *flags])} --init-img FILE --prompt TEXT")


def says(sentence: str) -> None:
    """End with a sentence and exit code 2."""

    def refuse() -> None:
        raise UserError(sentence)

    run_command(refuse)

"""How much of a LoRA: one number, or one for each part of the model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from ldm.additions.lora.names import TEXT_PREFIX, UNET_PREFIX
from ldm.util import UserError

LARGEST = 100.0  # a scale beyond this is a slip of the finger
PARTS = {"unet": UNET_PREFIX, "text": TEXT_PREFIX}


@dataclass(frozen=True)
class Scales:
    """Scales by part of the model: the last entry whose pattern a weight's name begins with counts, 0 where none does.

    Patterns are ``unet``, ``text``, or the beginning of a path in the UNet up to a dot, such as ``output_blocks`` or
    ``output_blocks.*.1``; an empty one is everything.
    """

    entries: tuple[tuple[str, float], ...] = (("", 1.0),)

    @classmethod
    def of(cls, scale: float) -> Scales:
        return cls((("", scale),))

    def at(self, weight: str) -> float:
        """The scale of a weight, by its name in the model."""
        found = [scale for pattern, scale in self.entries if _begins(weight, pattern)]
        return found[-1] if found else 0.0

    def unmatched(self, weights: set[str]) -> str | None:
        """A pattern that none of these weights has."""
        return next((p for p, _ in self.entries if not any(_begins(weight, p) for weight in weights)), None)

    def __str__(self) -> str:
        return ",".join(f"{scale:g}" + (f"@{pattern}" if pattern else "") for pattern, scale in self.entries)


def _begins(weight: str, pattern: str) -> bool:
    if not pattern:
        return True
    start = PARTS.get(pattern)
    if start is not None:
        return weight.startswith(start)
    path = weight.removeprefix(UNET_PREFIX)
    parts = pattern.split(".")
    return fnmatchcase(".".join(path.split(".")[: len(parts)]), pattern)


def parse_scales(text: str, what: str) -> Scales:
    """``0.8``, ``0.8@output_blocks`` or ``0.8@output_blocks,0.3@text``.

    Args:
        what: what was written, for the message.

    Raises:
        UserError: it is neither, or a scale beyond +-100.
    """
    entries: list[tuple[str, float]] = []
    for part in text.split(","):
        number, at, pattern = part.strip().partition("@")
        try:
            scale = float(number)
        except ValueError:
            scale = float("nan")
        if not abs(scale) <= LARGEST or (at and not re.fullmatch(r"[\w.*\[\]-]+", pattern)):
            raise UserError(f"'{what}': '{part}' is no scale; it should be as in FILE=0.8 or FILE=0.8@output_blocks")
        entries.append((pattern, scale))
    return Scales(tuple(entries))


def parse_lora(text: str) -> tuple[Path, Scales]:
    """A file, or a folder, and how much of it: ``FILE``, ``FILE=0.8``, ``FILE=0.8@output_blocks``.

    A file whose own name contains ``=`` is recognised by being there.

    Raises:
        UserError: the scale is none.
    """
    path, equals, scale = text.rpartition("=")
    if not equals or Path(text).exists():
        return Path(text), Scales()
    if not path:
        raise UserError(f"'{text}' should be a file, or a file and a scale: FILE=0.8")
    return Path(path), parse_scales(scale, text)

"""Weights of words in a prompt, as the web UI's users write them: ``(word:1.3)``, ``(word)``, ``[word]``.

A pure function of the text. Round brackets are 1.1 times as much, square ones 1 / 1.1, inside each other they multiply;
a number after a colon is a round bracket's own factor. A backslash before a bracket or a backslash means the sign
itself. What is left open goes on to the end; what closes nothing, and square brackets with ``:`` or ``|`` in them,
which mean other things in other programs, stand for themselves.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ldm.modules.encoders.learned_words import split_at
from ldm.util import UserError

MORE = 1.1
LARGEST = 100.0
_SIGNS = re.compile(r"\\[()\[\]\\]|\(|\)|\[|\]|:\s*([^():\[\]]*)\)", re.DOTALL)
_NUMBER = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)\s*")
_OTHER_MEANING = re.compile(r"\[[^\[\]]*[:|][^\[\]]*\]")


@dataclass(frozen=True)
class Span:
    """Characters ``start`` to ``end`` of a text, and their weight."""

    start: int
    end: int
    weight: float


@dataclass(frozen=True)
class Weighted:
    """A prompt without the signs of its weights, and the parts whose weight is not 1, in order, none over another."""

    text: str
    spans: tuple[Span, ...] = ()


def read_weights(prompt: str, placeholders: Sequence[str] = ()) -> Weighted:
    """The text of a prompt and its weights. A prompt without such signs is its own text.

    Args:
        placeholders: learned words, whose signs mean nothing.

    Raises:
        UserError: a weight beyond 100.
    """
    reader = _Reader()
    for before, name in split_at(prompt, placeholders):
        reader.read(before)
        if name is not None:
            reader.put(prompt[reader.seen : reader.seen + len(name)])
            reader.seen += len(name)
    return reader.result()


class _Reader:
    """Takes a prompt piece by piece; what is open is a stack of (bracket, where its text began)."""

    def __init__(self) -> None:
        self.seen = 0
        self.letters: list[str] = []
        self.weights: list[float] = []
        self.open: list[tuple[str, int]] = []

    def put(self, text: str) -> None:
        self.letters += text
        self.weights += [1.0] * len(text)

    def read(self, text: str) -> None:
        place = 0
        while (found := _SIGNS.search(text, place)) is not None:
            self.put(text[place : found.start()])
            other = _OTHER_MEANING.match(text, found.start())
            whole = other[0] if other else found[0]
            if other or not self._sign(whole, found[1]):
                self.put(whole)
            place = found.start() + len(whole)
        self.put(text[place:])
        self.seen += len(text)

    def _sign(self, sign: str, number: str | None) -> bool:
        """Whether a sign means something here; then it has been done."""
        if sign.startswith("\\"):
            self.put(sign[1])
        elif sign in "([":
            self.open.append((sign, len(self.letters)))
        elif self.open and self.open[-1][0] == "(" and number is not None and _NUMBER.fullmatch(number):
            self._close(_weight(number))
        elif self.open and number is None and self.open[-1][0] + sign in ("()", "[]"):
            self._close(MORE if sign == ")" else 1 / MORE)
        elif number is not None:  # a colon that is one, and a bracket
            self.put(sign[:-1])
            if not self._sign(")", None):
                self.put(")")
        else:
            return False
        return True

    def _close(self, factor: float) -> None:
        _, start = self.open.pop()
        self.weights[start:] = [weight * factor for weight in self.weights[start:]]

    def result(self) -> Weighted:
        while self.open:
            self._close(MORE if self.open[-1][0] == "(" else 1 / MORE)
        spans: list[Span] = []
        for place, weight in enumerate(self.weights):
            if spans and spans[-1].end == place and spans[-1].weight == weight:
                spans[-1] = Span(spans[-1].start, place + 1, weight)
            elif not math.isclose(weight, 1.0, rel_tol=1e-9):
                spans.append(Span(place, place + 1, weight))
        return Weighted("".join(self.letters), tuple(spans))


def _weight(number: str) -> float:
    weight = float(number)
    if abs(weight) > LARGEST:
        raise UserError(f"the weight {weight:g} in the prompt is beyond {LARGEST:g}; usual ones are from 0.5 to 1.5")
    return weight

"""Weights in prompts: how they are read, and what stays as it stands."""

from __future__ import annotations

import pytest

from ldm.modules.encoders.prompt_weights import Weighted, read_weights
from ldm.util import UserError


def parts(prompt: str, *placeholders: str) -> list[tuple[str, float]]:
    """The text in pieces of one weight."""
    read, found, place = read_weights(prompt, placeholders), [], 0
    for span in read.spans:
        found += [(read.text[place : span.start], 1.0)] if place < span.start else []
        found.append((read.text[span.start : span.end], round(span.weight, 6)))
        place = span.end
    return [*found, *([(read.text[place:], 1.0)] if place < len(read.text) else [])]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a red circle", [("a red circle", 1.0)]),
        ("a (red) circle", [("a ", 1.0), ("red", 1.1), (" circle", 1.0)]),
        ("a (red:1.3) circle", [("a ", 1.0), ("red", 1.3), (" circle", 1.0)]),
        ("a ((red)) [circle]", [("a ", 1.0), ("red", 1.21), (" ", 1.0), ("circle", 0.909091)]),
        ("(a (red:1.5) circle)", [("a ", 1.1), ("red", 1.65), (" circle", 1.1)]),
        ("[(red)]", [("red", 1.0)]),
        ("(red : .5 )", [("red ", 0.5)]),
        ("(a:b:2)", [("a:b", 2.0)]),
        ("(red:-0.5)", [("red", -0.5)]),
        ("(red:0)", [("red", 0.0)]),
        (r"a \(red\) circle", [("a (red) circle", 1.0)]),
        (r"(a \(red\:1.2):1.2)", [("a (red\\", 1.2), (":1.2)", 1.0)]),
        (r"a \\(red)", [("a \\", 1.0), ("red", 1.1)]),
        (r"a \ b", [(r"a \ b", 1.0)]),
        ("a (red circle", [("a ", 1.0), ("red circle", 1.1)]),
        ("a red) circle]", [("a red) circle]", 1.0)]),
        ("10:30) now", [("10:30) now", 1.0)]),
        ("(a:dog)", [("a:dog", 1.1)]),
        ("(red]", [("red]", 1.1)]),
        ("[cat:dog:0.5] and [a|b]", [("[cat:dog:0.5] and [a|b]", 1.0)]),
        ("", []),
        ("()", []),
    ],
)
def test_the_reading(prompt: str, expected: list[tuple[str, float]]) -> None:
    assert parts(prompt) == expected


def test_learned_words_stay_whole() -> None:
    assert read_weights("a [V] on (sks)", ["[V]", "(sks)"]) == Weighted("a [V] on (sks)")
    assert parts("a ([V]:1.5) dog", "[V]") == [("a ", 1.0), ("[V]", 1.5), (" dog", 1.0)]
    assert parts("a ([v]:1.5)", "[V]") == [("a ", 1.0), ("[v]", 1.5)]


def test_without_signs_it_is_the_prompt_itself() -> None:
    prompt = "a red circle, 3:2 <toy> {x}"
    assert read_weights(prompt) == Weighted(prompt)


def test_weights_beyond_reason() -> None:
    with pytest.raises(UserError, match="beyond 100"):
        read_weights("(red:1000)")

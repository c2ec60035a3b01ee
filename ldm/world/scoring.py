"""Counting how often pictures show what was asked for, and how sure that count is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ldm.world.labels import ATTRIBUTES, asked_by, compare, seen_as
from ldm.world.scene import Scene

Z_95 = 1.959963984540054
SURE = 0.9  # a judgement below this probability is told apart
READ_FROM = {  # attribute -> what a classifier tells apart of it
    "background": ("background",), "thing": ("first", "second"), "colour": ("first colour", "second colour"),
    "texture": ("first texture", "second texture"), "place": ("layout",), "size": ("layout",),
}  # fmt: skip

Judgement = Mapping[str, tuple[str, float]]  # what a classifier tells apart -> value seen, probability


@dataclass(frozen=True)
class Row:
    """One line of the table: how many pictures were asked for an attribute, and how many show it."""

    attribute: str
    asked: int
    right: int
    low: float  # 95 % interval of the share
    high: float
    confidence: float  # the classifier's mean probability of its own judgement
    unsure: int  # judgements below SURE

    @property
    def share(self) -> float:
        """Between 0 and 1; NaN where nothing was asked for."""
        return self.right / self.asked if self.asked else math.nan


def wilson(right: int, asked: int, z: float = Z_95) -> tuple[float, float]:
    """The score interval of a share (Wilson 1927): honest at 0 % and 100 % too, unlike share +- z sigma."""
    if asked == 0:
        return 0.0, 1.0
    share, spread = right / asked, z * z / asked
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / asked + spread / (4 * asked))
    return max(0.0, centre - half), min(1.0, centre + half)


def rows_of(wishes: Sequence[Scene], seen: Sequence[Judgement]) -> list[Row]:
    """A row for each attribute and one, 'all', for pictures that show everything asked."""
    found = [compare(wish, values_of(one)) for wish, one in zip(wishes, seen, strict=True)]
    rows = []
    for attribute in ATTRIBUTES:
        chosen = [(right[attribute], sure_of(one, attribute))
                  for right, one in zip(found, seen, strict=True) if attribute in right]  # fmt: skip
        rows.append(_row(attribute, [right for right, _ in chosen], [sure for _, sure in chosen]))
    surest = [min(sure_of(one, name) for name in right) for right, one in zip(found, seen, strict=True)]
    return [*rows, _row("all", [all(right.values()) for right in found], surest)]


def shade_rows(wishes: Sequence[Scene], seen: Sequence[Judgement], shades: Sequence[bool]) -> list[Row]:
    """Two rows more: pictures with the shades of what is seen on them, and those that show everything asked so.

    Args:
        wishes: what was asked for.
        seen: what a classifier sees on each picture.
        shades: of each, whether it has its shades (``ldm.world.shades``).
    """
    sure = [min(sure_of(one, name) for name in ("background", "thing")) for one in seen]
    shown = [all(compare(wish, values_of(one)).values()) for wish, one in zip(wishes, seen, strict=True)]
    both = [right and shade for right, shade in zip(shown, shades, strict=True)]
    return [_row("shade", shades, sure), _row("all, shades", both, sure)]


def values_of(judgement: Judgement) -> dict[str, str]:
    """What was seen, without the probabilities."""
    return {name: value for name, (value, _) in judgement.items()}


def sure_of(judgement: Judgement, attribute: str) -> float:
    """The probability that the classifier gives to what it saw of an attribute."""
    return min(judgement[name][1] for name in READ_FROM[attribute])


def _row(attribute: str, right: Sequence[bool], probabilities: Sequence[float]) -> Row:
    n, k = len(right), sum(right)
    mean = sum(probabilities) / n if n else math.nan
    return Row(attribute, n, k, *wilson(k, n), mean, sum(p < SURE for p in probabilities))


def mistakes(names: Sequence[str], wishes: Sequence[Scene], seen: Sequence[Judgement]) -> list[dict[str, Any]]:
    """Every attribute of every picture that is not as asked."""
    found = []
    for name, wish, one in zip(names, wishes, seen, strict=True):
        asked, shown = asked_by(wish), seen_as(values_of(one))
        found += [
            {"picture": name, "attribute": attribute, "asked": asked[attribute], "seen": shown[attribute],
             "probability": round(sure_of(one, attribute), 4)}
            for attribute, right in compare(wish, values_of(one)).items() if not right
        ]  # fmt: skip
    return found


def table(rows: Sequence[Row]) -> str:
    """The rows as text for people."""
    lines = [
        f"{'attribute':<12}{'right':>6} of{'asked':>6}{'share':>9}{'95 % interval':>19}{'confidence':>12}{'unsure':>8}"
    ]
    lines += [
        f"{row.attribute:<12}{row.right:>6} of{row.asked:>6}{row.share:>9.2%}{row.low:>10.2%} -{row.high:>7.2%}"
        f"{row.confidence:>12.3f}{row.unsure:>8}"
        for row in rows
    ]
    return "\n".join(lines)


def as_json(rows: Sequence[Row]) -> dict[str, Any]:
    """The rows by attribute, for files."""
    return {row.attribute: {**asdict(row), "share": row.share} for row in rows}

"""Counting how often pictures show what their captions ask for, and how sure that count is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ldm.world.attributes import ATTRIBUTES, VALUES, Attributes

Z_95 = 1.959963984540054
SURE = 0.9  # a judgement below this probability is told apart


@dataclass(frozen=True)
class Row:
    """One line of the table: how many pictures were asked for an attribute, and how many show it."""

    attribute: str
    asked: int
    right: int
    low: float  # 95 % interval of the share
    high: float
    confidence: float  # the scorer's mean probability of its own judgement
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


Judgement = Mapping[str, tuple[str, float]]  # attribute -> value seen, probability


def compare(asked: Sequence[Attributes], seen: Sequence[Judgement]) -> list[Row]:
    """A row for each attribute and one, 'all', for pictures that show everything asked."""
    rows = []
    everything = [True] * len(asked)
    surest = [1.0] * len(asked)
    for attribute in ATTRIBUTES:
        chosen = [i for i, wish in enumerate(asked) if getattr(wish, attribute) is not None]
        right = [seen[i][attribute][0] == getattr(asked[i], attribute) for i in chosen]
        probabilities = [seen[i][attribute][1] for i in chosen]
        for i, ok, probability in zip(chosen, right, probabilities, strict=True):
            everything[i] &= ok
            surest[i] = min(surest[i], probability)
        rows.append(_row(attribute, right, probabilities))
    return [*rows, _row("all", everything, surest)]


def _row(attribute: str, right: Sequence[bool], probabilities: Sequence[float]) -> Row:
    n, k = len(right), sum(right)
    mean = sum(probabilities) / n if n else math.nan
    return Row(attribute, n, k, *wilson(k, n), mean, sum(p < SURE for p in probabilities))


def mistakes(names: Sequence[str], asked: Sequence[Attributes], seen: Sequence[Judgement]) -> list[dict[str, Any]]:
    """Every attribute of every picture that is not as asked."""
    return [
        {
            "picture": name,
            "attribute": attribute,
            "asked": wanted,
            "seen": shown[attribute][0],
            "probability": round(shown[attribute][1], 4),
        }
        for name, wish, shown in zip(names, asked, seen, strict=True)
        for attribute in ATTRIBUTES
        if (wanted := getattr(wish, attribute)) is not None and wanted != shown[attribute][0]
    ]


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


def labels() -> dict[str, tuple[str, ...]]:
    """The scorer's classes: attribute -> values in the order of its outputs."""
    return dict(VALUES)

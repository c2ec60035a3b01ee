"""Edited prompts: pictures of a second prompt that attend as those of the first do (Hertz et al. 2022).

A batch holds the pictures of the first prompts, then as many of the second; where guidance puts an unconditional half
before them, only the conditional half is changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.control.regions import Grid
from ldm.control.seam import Call
from ldm.control.softmax import logits

LARGEST_SELF = 32 * 32  # positions of a map whose self-attention is kept; larger ones draw the edit's own detail
FINE = 16  # cells of a side from which one more beside a place is little
THRESHOLD = 0.3  # of a word's map, whose largest value is 1


@dataclass(frozen=True)
class Alignment:
    """Which tokens of a first prompt those of a second come from.

    Attributes:
        matrix: [M, M'], the share that each token of the first has in one of the second; columns sum to 1, or to 0.
        weights: [M'], factors of the second prompt's maps.
    """

    matrix: Tensor
    weights: Tensor

    @classmethod
    def of(cls, first: Sequence[int], second: Sequence[int], weights: Tensor | None = None) -> Alignment:
        """Of two rows of token ids: what is equal, and what stands in the place of something; the rest is new."""
        matrix = torch.zeros(len(first), len(second))
        for kind, a, b, c, d in SequenceMatcher(a=list(first), b=list(second), autojunk=False).get_opcodes():
            if kind in ("equal", "replace"):
                matrix[a:b, c:d] = _spread(b - a, d - c)
        return cls(matrix, torch.ones(len(second)) if weights is None else weights)

    def applied(self, first: Tensor, second: Tensor) -> Tensor:
        """Maps [... M] of the first and [... M'] of the second prompt -> those that the second is to have."""
        matrix = self.matrix.to(first)
        return first @ matrix + second * (1 - matrix.sum(dim=0))


def _spread(count: int, wanted: int) -> Tensor:
    """[count, wanted]: each of the wanted ones is where it lies among the others, in order; columns sum to 1."""
    same = torch.eye(count)
    return same if count == wanted else F.interpolate(same[None], size=wanted, mode="linear", align_corners=False)[0]


def halves(total: int, pictures: int) -> tuple[slice, slice]:
    """The conditional rows of the first and of the second prompts in a batch."""
    return slice(total - 2 * pictures, total - pictures), slice(total - pictures, total)


class EditCross:
    """The second prompt's cross-attention: maps of the first where words have come from it, and weighted words."""

    def __init__(self, alignments: Sequence[Alignment], until: int, seen: WordMaps | None = None) -> None:
        """``until``: the first level's index at which the second prompt is on its own."""
        self.alignments, self.until, self.seen = list(alignments), until, seen

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, call: Call, scale: float | None = None) -> Tensor:
        out = call.inner(q, k, v, scale=scale)
        sources, targets = halves(q.shape[0], len(self.alignments))
        edits = call.index < self.until
        if not (edits or self.seen is not None):
            return out
        first, second = (logits(q[rows], k[rows], scale).softmax(dim=-1) for rows in (sources, targets))
        if edits:
            parts = zip(self.alignments, first, second, strict=True)
            second = torch.stack([one.applied(a, b) * one.weights.to(b) for one, a, b in parts])
            out = torch.cat([out[: targets.start], second.to(v.dtype) @ v[targets]])
        if self.seen is not None:
            self.seen.add(first, second, call.grid(q.shape[2]))
        return out


class EditSelf:
    """The second prompt's self-attention: queries and keys of the first, so that things stay where they are."""

    def __init__(self, pictures: int, until: int) -> None:
        self.pictures, self.until = pictures, until

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, call: Call, scale: float | None = None) -> Tensor:
        if q.shape[2] > LARGEST_SELF or call.index >= self.until:
            return call.inner(q, k, v, scale=scale)
        sources, targets = halves(q.shape[0], self.pictures)
        q, k = (torch.cat([part[: targets.start], part[sources]]) for part in (q, k))
        return call.inner(q, k, v, scale=scale)


@dataclass
class WordMaps:
    """Where the words that an edit is about have been looked at so far, in either picture.

    Attributes:
        words: for each picture, the places of the words in the first and in the second prompt.
    """

    words: Sequence[tuple[Sequence[int], Sequence[int]]]
    sums: dict[Grid, Tensor] = field(default_factory=dict)

    def add(self, first: Tensor, second: Tensor, grid: Grid) -> None:
        """Maps [n h N M] of both."""
        rows = [
            torch.stack([
                probs[row][..., list(places)].mean(dim=0).sum(dim=-1) for probs, places in ((first, one), (second, two))
            ])
            for row, (one, two) in enumerate(self.words)
        ]  # fmt: skip
        seen = torch.stack(rows).unflatten(-1, grid)
        self.sums[grid] = self.sums[grid] + seen if grid in self.sums else seen

    def masks(self, size: Grid) -> Tensor:
        """[n, 1, H, W], 1 where a word is looked at by at least 0.3 of the most; on fine maps also beside that."""
        wider = [F.max_pool2d(one, 3, 1, 1) if min(grid) >= FINE else one for grid, one in self.sums.items()]
        planes = [F.interpolate(one, size=size, mode="bilinear") for one in wider]
        seen = torch.stack(planes).mean(dim=0)
        relative = seen / seen.amax(dim=(2, 3), keepdim=True).clamp(min=1e-12)
        return (relative > THRESHOLD).any(dim=1, keepdim=True).to(seen)

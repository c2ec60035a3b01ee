"""The pictures of a request, batch by batch, and the seed of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ldm.models.diffusion.noise import ImageNoise


@dataclass(frozen=True)
class Batch:
    """Pictures that are made together: their prompts and seeds.

    Attributes:
        varied: the seeds of the noise that each picture's own is varied towards; () for none.
        strength: how far, from 0 to 1.
        given: the prompts as they were before a language model went on with them; () where none did.
        expander: that model's name.
    """

    prompts: list[str]
    seeds: list[int]
    varied: tuple[int, ...] = ()
    strength: float = 0.0
    given: tuple[str, ...] = ()
    expander: str = ""

    def part(self, rows: Sequence[int]) -> Batch:
        """Some of the pictures."""
        prompts, seeds = [self.prompts[row] for row in rows], [self.seeds[row] for row in rows]
        varied = tuple(self.varied[row] for row in rows if self.varied)
        given = tuple(self.given[row] for row in rows if self.given)
        return replace(self, prompts=prompts, seeds=seeds, varied=varied, given=given)

    def about(self, row: int) -> dict[str, Any]:
        """What a picture's parameters say of it."""
        varied = {"variation_seed": self.varied[row], "variation_strength": self.strength} if self.varied else {}
        grown = self.given and self.given[row] != self.prompts[row]
        expanded = {"prompt_given": self.given[row], "expanded_by": self.expander} if grown else {}
        return {"prompt": self.prompts[row], "seed": self.seeds[row], **varied, **expanded}

    def start(self, shape: Sequence[int], noise: ImageNoise) -> Tensor:
        """The start noise [B, *shape] of the pictures: the first draw of ``noise``, varied where that is asked for."""
        first = noise.draw(shape)
        return between(first, ImageNoise(self.varied).draw(shape), self.strength) if self.varied else first


def batches(row: Sequence[str], size: int, passes: int, seed: int, same_seeds: bool = False) -> Iterator[Batch]:
    """Pictures of these prompts, ``passes`` times, ``size`` of them in a batch.

    Args:
        seed: of the first picture; each further one has the next.
        same_seeds: every batch begins with the first seed.
    """
    made = 0
    for _ in range(passes):
        for start in range(0, len(row), size):
            part = list(row[start : start + size])
            first = seed + (0 if same_seeds else made)
            yield Batch(part, list(range(first, first + len(part))))
            made += len(part)


def between(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Noise [B, ...] on the way from one to another, row by row on the arc between them, so that it stays as large.

    Source: Shoemake 1985 (slerp).
    """
    a, b = first.flatten(1), second.flatten(1)
    cosine = (a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1))
    angle = cosine.clamp(-1, 1).acos()[:, None]
    mixed = (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / angle.sin().clamp(min=1e-6)
    return torch.where(angle.sin() > 1e-4, mixed, torch.lerp(a, b, share)).reshape(first.shape)

"""Energies: what the cross-attention of a picture lacks, as a number that can be driven down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.control.observe import AttentionMaps, Observe
from ldm.control.regions import Grid, Region
from ldm.control.seam import Call
from ldm.control.sites import Sites, by_resolution, sites
from ldm.util import UserError

EXCITE_FACTOR = 4  # the latent against the map: 16 cells for 512 pixels of Stable Diffusion
TEMPERATURE = 100.0  # sharpens a word's share of the attention
SIGMA, KERNEL = 0.5, 3


class Energy(Protocol):
    """A number for each picture of a batch, of the probabilities of its cross-attention."""

    @property
    def sites(self) -> Sites:
        """The layers whose maps count."""

    @property
    def rows(self) -> Sequence[int]:
        """The pictures of the batch that want something."""

    def __call__(self, maps: AttentionMaps, rows: Sequence[int]) -> Tensor:
        """The energies [r] float32 of r pictures, whose maps are those of a batch of r."""


class AllSeen(Exception):  # noqa: N818 nothing went wrong
    """Every map that was wanted is there; the rest of the network need not run."""


class ObserveUntil(Observe):
    """Keeps the maps of some sites, and ends the network's call with ``AllSeen`` at the last of them."""

    def __init__(self, maps: AttentionMaps, where: Sites) -> None:
        super().__init__(maps)
        self.wanted = frozenset(where)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, call: Call, scale: float | None = None) -> Tensor:
        out = super().__call__(q, k, v, call=call, scale=scale)
        if self.wanted <= self.maps.grids.keys():
            raise AllSeen
        return out


@dataclass(frozen=True)
class Goal:
    """A word and where it is wanted.

    Attributes:
        tokens: the places of its tokens in the context.
    """

    tokens: tuple[int, ...]
    region: Region


@dataclass(frozen=True)
class Layout:
    """How little of the attention to some words lies where they are wanted (Chen et al. 2023, equation 2).

    (1 - a)^2 with a = (inside the region) / (all of the map), for each head and token; its mean over heads, tokens,
    words and layers. 0 where all lies inside.

    Attributes:
        goals: for each picture of the batch.
    """

    goals: Sequence[Sequence[Goal]]
    sites: Sites

    @property
    def rows(self) -> Sequence[int]:
        return [row for row, goals in enumerate(self.goals) if goals]

    def __call__(self, maps: AttentionMaps, rows: Sequence[int]) -> Tensor:
        layers = [(probs, maps.grids[site]) for (site, _), probs in maps.probs.items()]
        return torch.stack([self._of_row(layers, place, self.goals[row]) for place, row in enumerate(rows)])

    @staticmethod
    def _of_row(layers: Sequence[tuple[Tensor, Grid]], place: int, goals: Sequence[Goal]) -> Tensor:
        terms = []
        for probs, grid in layers:
            for goal in goals:
                seen = probs[place][..., list(goal.tokens)]  # [h n t]
                inside = goal.region.cells(grid).flatten().to(seen)
                share = (seen * inside[:, None]).sum(dim=1) / seen.sum(dim=1)
                terms.append((1 - share).square().mean())
        return torch.stack(terms).mean()


@dataclass(frozen=True)
class Excite:
    """How little the most neglected of some words is looked at (Chefer et al. 2023, equation 1): max (1 - peak).

    A word's peak is the largest value of its smoothed map; that of several tokens is their mean.

    Attributes:
        words: for each picture of the batch, the places of each word's tokens in the context.
        stops: for each picture, the place before which the words end that share attention; None: the last one. Some
            encoders' padding is looked at like words (Stable Diffusion v1), that of others is not.
    """

    words: Sequence[Sequence[tuple[int, ...]]]
    sites: Sites
    stops: Sequence[int | None] | None = None

    @property
    def rows(self) -> Sequence[int]:
        return [row for row, words in enumerate(self.words) if words]

    def __call__(self, maps: AttentionMaps, rows: Sequence[int]) -> Tensor:
        lacking = [(1 - self.peaks(maps, place, row)).clamp(min=0).max() for place, row in enumerate(rows)]
        return torch.stack(lacking)

    def peaks(self, maps: AttentionMaps, place: int, row: int) -> Tensor:
        """How much each word [words] of a picture is looked at where it is looked at most; ``place`` is its map's."""
        seen = mean_map(maps)[place]
        stop = None if self.stops is None else self.stops[row]
        shares = (seen[..., 1 : seen.shape[-1] - 1 if stop is None else stop] * TEMPERATURE).softmax(dim=-1)
        return torch.stack([self._peak(shares, tokens) for tokens in self.words[row]])

    @staticmethod
    def _peak(shares: Tensor, tokens: Sequence[int]) -> Tensor:
        """Of a word, among shares [H, W, tokens] without the start marker."""
        planes = shares[..., [token - 1 for token in tokens]].permute(2, 0, 1)
        return smooth(planes).flatten(1).amax(dim=1).mean()


def mean_map(maps: AttentionMaps) -> Tensor:
    """The mean over heads and layers, of maps of one size: [b, H, W, tokens]."""
    grid = next(iter(maps.grids.values()))
    return torch.stack([probs.mean(dim=1).unflatten(1, grid) for probs in maps.probs.values()]).mean(dim=0)


def smooth(planes: Tensor) -> Tensor:
    """[n, H, W] under a 3x3 kernel in proportion to exp(-(i / 2 sigma)^2), edges mirrored; as large as they were.

    So the sources have it: its standard deviation is sigma sqrt(2). A side of one cell is continued as it is.
    """
    steps = torch.arange(KERNEL, device=planes.device, dtype=planes.dtype) - KERNEL // 2
    line = torch.exp(-((steps / (2 * SIGMA)) ** 2))
    kernel = line[:, None] * line
    kernel = (kernel / kernel.sum())[None, None]
    border = "reflect" if min(planes.shape[-2:]) > 1 else "replicate"
    return F.conv2d(F.pad(planes[:, None], [KERNEL // 2] * 4, mode=border), kernel)[:, 0]


def layout_sites(unet: nn.Module) -> Sites:
    """Cross-attention of the middle and of the first level of the decoder that has any, as in the source.

    Raises:
        UserError: the network has no cross-attention.
    """
    decoder = by_resolution(unet, "output_blocks")
    middle = [name for name in sites(unet, "*", "cross") if name.startswith("middle_block.")]
    return Sites((*middle, *decoder[max(decoder)]))


def excite_sites(unet: nn.Module) -> Sites:
    """All cross-attention where the latent is a quarter of its size, or of the next larger size that has some.

    Raises:
        UserError: the network has no cross-attention.
    """
    levels = by_resolution(unet)
    fitting = [factor for factor in levels if factor <= EXCITE_FACTOR]
    if not fitting:
        raise UserError(f"this network has no cross-attention at a {EXCITE_FACTOR}th of the latent's size or above")
    return levels[max(fitting)]

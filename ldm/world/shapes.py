"""The rendered, captioned world that the tiny model learns, as a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ldm.draws import choose, number_of, uniform
from ldm.util import UserError
from ldm.world.attributes import Attributes, Split, combinations
from ldm.world.captions import LANGUAGES, caption, language_of
from ldm.world.photos import BundledPhotos
from ldm.world.render import render

Array = NDArray[np.float32]


class ShapesWorld(Dataset[dict[str, Any]]):
    """Pictures of one object each, with their captions; every item is a function of (seed, index).

    Items are {"image": [size, size, 3] float32 in [-1, 1], "caption": str}. Each run of as many items as the split
    has combinations holds every combination once, in an order of its own.

    Args:
        split: 'train', 'heldout' (combinations that training never sees) or 'all'.
        size: width and height in pixels.
        length: how many items.
        seed: another seed, other items.
        language: 'en', 'ko', 'zh' or 'mixed' (one of the three for each item).
        caption_dropout: share of empty captions, for classifier-free guidance.
        open_size: share of captions that do not say the size.
        jitter: largest shift of the object in either direction, in widths of the picture.
        photos_share: share of items that are a crop of a bundled photograph (held-out photographs for 'heldout').
        photos_recolour: share of those crops in other colours, see `BundledPhotos`.

    Raises:
        UserError: a split, language or share that does not exist.
    """

    def __init__(
        self,
        split: Split = "train",
        size: int = 64,
        length: int = 100_000,
        seed: int = 0,
        language: str = "en",
        caption_dropout: float = 0.0,
        open_size: float = 0.15,
        jitter: float = 0.0,
        photos_share: float = 0.0,
        photos_recolour: float = 0.0,
    ) -> None:
        self.combinations = combinations(split)
        for name, share in (
            ("caption_dropout", caption_dropout),
            ("open_size", open_size),
            ("photos_share", photos_share),
        ):
            if not 0 <= share <= 1:
                raise UserError(f"{name} is a share between 0 and 1, got {share}")
        if size < 8 or length < 1 or not 0 <= jitter <= 0.5:
            raise UserError(
                f"a rendered world needs size >= 8, length >= 1 and jitter in [0, 0.5], "
                f"got {size}, {length} and {jitter}"
            )
        if language != "mixed":
            language_of(language)
        self.size, self.length, self.seed, self.language = size, length, seed, language
        self.caption_dropout, self.open_size = caption_dropout, open_size
        self.jitter, self.photos_share = jitter, photos_share
        self.photos: BundledPhotos | None = None
        if photos_share > 0:
            self.photos = BundledPhotos(split, size, length, seed, recolour=photos_recolour, language=language)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Many items at once, as torch's data loader asks for them: one rendering call for the batch."""
        numbers = np.asarray([number_of(i, self.length) for i in indices], np.int64)
        drawn = [self.combinations[i] for i in self._combination(numbers)]
        pictures = render(drawn, self.size, self._offsets(numbers))
        captions = self._captions(drawn, numbers)
        items: list[dict[str, Any]] = [
            {"image": image, "caption": text} for image, text in zip(pictures, captions, strict=True)
        ]
        if self.photos is not None:
            photographs = np.flatnonzero(uniform(self.seed, numbers, "photo") < self.photos_share)
            for row in photographs:
                items[row] = self.photos[int(numbers[row])]
        for row in np.flatnonzero(uniform(self.seed, numbers, "dropout") < self.caption_dropout):
            items[row]["caption"] = ""
        return items

    def attributes(self, index: int) -> Attributes:
        """What the object of an item is (whether or not a photograph takes its place)."""
        return self.combinations[self._combination(np.asarray([number_of(index, self.length)]))[0]]

    def _combination(self, numbers: NDArray[np.int64]) -> list[int]:
        n = len(self.combinations)
        return [int(_order(self.seed, int(i) // n, n)[int(i) % n]) for i in numbers]

    def _offsets(self, numbers: NDArray[np.int64]) -> Array | None:
        if self.jitter == 0:
            return None
        both = np.stack([uniform(self.seed, numbers, axis) for axis in ("x", "y")], axis=1)
        return ((2 * both - 1) * self.jitter).astype(np.float32)

    def _captions(self, drawn: Sequence[Attributes], numbers: NDArray[np.int64]) -> list[str]:
        variants = 1 + choose(self.seed, numbers, "variant", 2**31)
        sizes_open = uniform(self.seed, numbers, "open size") < self.open_size
        languages = languages_of(self.language, self.seed, numbers)
        return [
            caption(replace(item, size=None) if open_size else item, language, int(variant))
            for item, open_size, language, variant in zip(drawn, sizes_open, languages, variants, strict=True)
        ]


def languages_of(language: str, seed: int, numbers: NDArray[np.int64]) -> list[str]:
    """The language of each item: the one asked for, or one of the three where 'mixed' is."""
    if language != "mixed":
        return [language] * len(numbers)
    names = tuple(LANGUAGES)
    return [names[i] for i in choose(seed, numbers, "language", len(names))]


@lru_cache(maxsize=8)
def _order(seed: int, block: int, n: int) -> NDArray[np.int64]:
    """The block-th shuffle of n combinations."""
    return np.argsort(uniform(seed, np.arange(n, dtype=np.int64) + block * n, "order"), kind="stable")

"""The rendered world as a data set: objects of real life, shapes and figures before many backgrounds."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ldm.draws import number_of, uniform
from ldm.util import UserError
from ldm.world.draw_scenes import (
    Figure,
    Shares,
    chosen_objects,
    draw_figure,
    draw_scene,
    draws,
    paint_figure,
)
from ldm.world.paint import check_size, paint
from ldm.world.scene import Scene, Split
from ldm.world.sentences import figure_wish, language_called, languages_of, say, speak

Array = NDArray[np.float32]


class SceneWorld(Dataset[dict[str, Any]]):
    """Pictures of scenes with sentences as people write them; every picture is a function of (seed, index).

    Items are {"image": [size, size, 3] float32 in [-1, 1], "caption": str}. A sentence is a function of (seed, index)
    too; `labels` gives another one at each visit, for latents that are computed once.

    Args:
        split: 'train', 'heldout' (a thing before a background in a place that training never sees) or 'all'.
        size: width and height in pixels, a multiple of 16.
        length: how many items.
        seed: another seed, other items.
        language: 'en', 'ko', 'zh' or 'mixed' (one of the three for each item).
        objects: how many objects, the first ones of the atlas; None for all.
        shapes: share of geometric shapes among single things.
        two: share of scenes with two things.
        figures: share of figures without a name.
        outlined: share of scenes in which a thing has nearly the colour of its background, so that it is outlined,
            where such a background is left for it; without this share they are one in eleven.
        caption_dropout: share of empty captions, for classifier-free guidance.
        plain_sentences: True says everything in the plainest sentence, as a judge's prompts do.

    Raises:
        UserError: a split, size, language or share that does not exist.
    """

    def __init__(
        self,
        split: Split = "train",
        size: int = 64,
        length: int = 100_000,
        seed: int = 0,
        language: str = "en",
        objects: int | None = None,
        shapes: float = 0.22,
        two: float = 0.2,
        figures: float = 0.06,
        caption_dropout: float = 0.0,
        plain_sentences: bool = False,
        outlined: float = 0.0,
    ) -> None:
        if split not in ("train", "heldout", "all"):
            raise UserError(f"the world has no split '{split}'; it has: train, heldout, all")
        given = {"shapes": shapes, "two": two, "figures": figures, "caption_dropout": caption_dropout,
                 "outlined": outlined}  # fmt: skip
        wrong = [name for name, share in given.items() if not 0 <= share <= 1]
        if wrong:
            raise UserError(f"{wrong[0]} is a share between 0 and 1, got {given[wrong[0]]}")
        if length < 1:
            raise UserError(f"a world needs length >= 1, got {length}")
        if language != "mixed":
            language_called(language)
        check_size(size)
        self.split, self.size, self.length, self.seed, self.language = split, size, length, seed, language
        self.names = chosen_objects(objects)
        self.shares = Shares(shapes, two, figures, outlined)
        self.caption_dropout, self.plain_sentences = caption_dropout, plain_sentences

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Many items at once, as torch's data loader asks for them."""
        numbers = self._numbers(indices)
        contents = self.contents(indices)
        scenes = [content for content in contents if isinstance(content, Scene)]
        painted = iter(paint(scenes, self.size))
        pictures = [
            next(painted) if isinstance(content, Scene) else paint_figure(content, self.size) for content in contents
        ]
        dropped = uniform(self.seed, numbers, "dropout") < self.caption_dropout
        captions = self._captions(contents, numbers, uniform(self.seed, numbers, "sentence"))
        return [
            {"image": picture, "caption": "" if empty else text}
            for picture, text, empty in zip(pictures, captions, dropped, strict=True)
        ]

    def contents(self, indices: Sequence[int]) -> list[Scene | Figure]:
        """What is on the pictures of items."""
        numbers = self._numbers(indices)
        rows = draws(self.seed, numbers)
        strange = uniform(self.seed, numbers, "figure") < self.shares.figures
        return [
            draw_figure(row) if figure else draw_scene(row, self.split, self.shares, self.names)
            for row, figure in zip(rows, strange, strict=True)
        ]

    def labels(self, index: int) -> dict[str, Any]:
        """A sentence for an item, drawn from Python's generator."""
        return self.labels_of([index])[0]

    def labels_of(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """A sentence for each of many items, drawn from Python's generator: much faster than one by one."""
        empty = [random.random() < self.caption_dropout for _ in indices]
        variants = [random.random() for _ in indices]
        captions = self._captions(self.contents(indices), self._numbers(indices), variants)
        return [{"caption": "" if none else text} for text, none in zip(captions, empty, strict=True)]

    def _captions(
        self, contents: Sequence[Scene | Figure], numbers: NDArray[np.int64], variants: Iterable[float]
    ) -> list[str]:
        languages = languages_of(self.language, self.seed, numbers)
        return [
            self._caption(content, language, float(variant))
            for content, language, variant in zip(contents, languages, variants, strict=True)
        ]

    def _caption(self, content: Scene | Figure, language: str, variant: float) -> str:
        rng = random.Random(variant)
        if isinstance(content, Figure):
            wish = figure_wish(content.kind, content.texture, content.colours, content.ground, rng)
            return speak(wish, language, rng)
        return say(content, language, None if self.plain_sentences else rng)

    def _numbers(self, indices: Sequence[int]) -> NDArray[np.int64]:
        return np.asarray([number_of(index, self.length) for index in indices], np.int64)

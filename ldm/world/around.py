"""What is around a word that is learned: scenes of the world in which it stands for a thing, without that thing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ldm.draws import number_of
from ldm.util import UserError
from ldm.world.draw_scenes import Shares, chosen_objects, draw_scene, draws
from ldm.world.paint import box, check_size, paint
from ldm.world.scene import Thing
from ldm.world.sentences import speak, wish_for
from ldm.world.sentences.voice import Wish, without

Array = NDArray[np.float32]


class Around(Dataset[dict[str, Any]]):
    """Pictures of scenes whose sentences have a word in the place of a thing's name, and masks of all but that thing.

    Beside a few pictures of a concept they keep its word from changing what else a prompt asks for: backgrounds and
    neighbours that those pictures do not show. Where the concept itself will stand nothing is said of it: the mask
    leaves out the whole square of the thing.

    Items are {"image": [size, size, 3] float32 in [-1, 1], "caption": str, "loss_mask": [size, size] float32, 0 or 1};
    each is a function of (seed, index), and its scene one that training may see.

    Args:
        placeholder_token: the word, or several, of which items have one in turn.
        size: width and height in pixels, a multiple of 16.
        length: how many items.
        seed: another seed, other items.
        shapes: share of geometric shapes among the things that the word stands for alone.
        two: share of scenes with another thing beside.

    Raises:
        UserError: a size that the world does not take, a share that is none, no items.
    """

    def __init__(
        self,
        placeholder_token: str | Sequence[str] = "*",
        size: int = 128,
        length: int = 100_000,
        seed: int = 0,
        shapes: float = 0.22,
        two: float = 0.3,
    ) -> None:
        check_size(size)
        if length < 1 or not (0 <= shapes <= 1 and 0 <= two <= 1):
            raise UserError(f"length is at least 1, shares are 0 to 1; got {length}, shapes {shapes}, two {two}")
        self.words = [placeholder_token] if isinstance(placeholder_token, str) else list(placeholder_token)
        self.size, self.length, self.seed = size, length, seed
        self.shares = Shares(shapes, two, 0.0, 0.0)
        self.names = chosen_objects(None)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        number = number_of(index, self.length)
        scene = draw_scene(draws(self.seed, np.array([number]))[0], "train", self.shares, self.names)
        rng = random.Random(f"{self.seed} {number}")
        which = rng.randrange(len(scene.things))
        return {
            "image": paint([scene], self.size)[0],
            "caption": speak(called(wish_for(scene, rng), which, self.words[number % len(self.words)]), "en", rng),
            "loss_mask": all_but(scene.things[which], self.size),
        }


def called(wish: Wish, which: int, word: str) -> Wish:
    """A wish in which a word stands for one of the things; of that thing only size and place are said."""
    slotted = replace(without(wish.named[which], "colour", "texture"), slot=word)
    return replace(wish, named=(*wish.named[:which], slotted, *wish.named[which + 1 :]))


def all_but(thing: Thing, size: int) -> Array:
    """A mask [size, size]: 0 in the square of a complete thing, 1 elsewhere."""
    left, top, side = box(str(thing.size), str(thing.place), size)
    mask = np.ones((size, size), np.float32)
    mask[top : top + side, left : left + side] = 0
    return mask

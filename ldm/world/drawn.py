"""Scenes as a model drew them, in latents, with the pictures that they should have been."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ldm.arrays import read_array, write_array
from ldm.draws import number_of, uniform
from ldm.util import UserError
from ldm.world.paint import check_size, paint
from ldm.world.scene import Scene
from ldm.world.scene_files import read_scenes, write_scenes
from ldm.world.sentences import say

DRAWN = "drawn"  # the key that a latent diffusion model knows them by


def write_drawn(folder: Path, number: int, latents: NDArray[np.generic], scenes: Sequence[Scene]) -> None:
    """Write latents [N, C, h, w] and the complete scenes that they show as a portion of a folder, in half precision.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    write_array(folder / f"{number:04}.npy", latents.astype(np.float16))
    write_scenes(portion(folder, number), scenes)  # the last: a portion without it is not there


def portion(folder: Path, number: int) -> Path:
    """The scenes' file of a portion; its latents lie beside it."""
    return folder / f"{number:04}.jsonl"


def is_there(path: Path) -> bool:
    """Whether a portion was written whole, by its scenes' file."""
    return path.exists() and path.with_suffix(".npy").exists()


def portions(folder: Path) -> list[Path]:
    """The scenes' files of the portions that a folder has, in order."""
    return sorted(filter(is_there, folder.glob("*.jsonl")))


class DrawnScenes(Dataset[dict[str, Any]]):
    """What ``scripts.sample_scenes`` made: a model's latents of scenes, with sentences and true renders.

    Items are {"drawn": [C, h, w] float32, "image": [size, size, 3] float32 in [-1, 1], "caption": str}. A model that
    learns from them puts right what it regularly gets wrong. Item i is of scene i modulo their number, in words of its
    own, every second time in the plainest.

    Args:
        folder: what the command wrote.
        size: width and height of the renders, a multiple of 16: that of the pictures whose latents these are.
        length: how many items.
        seed: another seed, other sentences.
    """

    def __init__(self, folder: str, size: int = 128, length: int = 100_000, seed: int = 0) -> None:
        """Raises UserError: the folder has no portions, or one whose latents and scenes do not fit each other."""
        check_size(size)
        if length < 1:
            raise UserError(f"drawn scenes need length >= 1, got {length}")
        self.size, self.length, self.seed = size, length, seed
        self.scenes: list[Scene] = []
        latents = []
        for path in portions(Path(folder)):
            latents.append(read_array(path.with_suffix(".npy"), "file of latents"))
            self.scenes += read_scenes(path)
            if latents[-1].ndim != 4 or sum(map(len, latents)) != len(self.scenes):
                raise UserError(f"'{path.with_suffix('.npy')}' has no latent [C, h, w] for each scene of '{path.name}'")
            if latents[-1].shape[1:] != latents[0].shape[1:]:
                raise UserError(f"'{path.with_suffix('.npy')}' has latents of another shape than the portions before")
        if not self.scenes:
            raise UserError(f"'{folder}' has no drawn scenes: python -m scripts.sample_scenes {folder} makes them")
        self.latents = np.concatenate(latents)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Many items at once, as torch's data loader asks for them."""
        numbers = [number_of(index, self.length) for index in indices]
        rows = [number % len(self.scenes) for number in numbers]
        pictures = paint([self.scenes[row] for row in rows], self.size)
        variants = uniform(self.seed, np.asarray(numbers, np.int64), "sentence")
        return [
            {
                DRAWN: self.latents[row].astype(np.float32),
                "image": picture,
                "caption": say(self.scenes[row], "en", None if variant < 0.5 else random.Random(variant)),
            }
            for row, picture, variant in zip(rows, pictures, variants, strict=True)
        ]

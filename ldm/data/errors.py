"""What a network got wrong in patches of latents, beside what its blocks held then, as a data set for a corrector."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ldm.arrays import read_array
from ldm.draws import choose, number_of
from ldm.util import UserError

METRIC = "metric.npy"  # how much each channel of a latent changes a picture, [C, C]
EMPTY = 0.15  # share of the patches far from all things that are learned from
PATCH = 2  # cells along each side of a patch of a latent, as ``ldm.modules.corrector`` has it


def portion(folder: Path, number: int) -> Path:
    """The file of a portion of patches."""
    return folder / f"{number:04}.npy"


def read_portions(folder: Path) -> Iterator[NDArray[Any]]:
    """The portions of a folder in order: of patches [N, D + 4 C], or of pictures, a record each."""
    return (read_array(path, "file of patches", records=True) for path in sorted(folder.glob("[0-9]*.npy")))


class Patches(Dataset[dict[str, Any]]):
    """Patches of what a command kept, from anywhere in its folder, a function of (seed, index).

    Args:
        folder: what the command wrote.
        patches: how many make an item.
        length: how many items.
        seed: another seed, other items.
    """

    command: ClassVar[str]  # what writes such folders

    def __init__(self, folder: str, patches: int = 256, length: int = 100_000, seed: int = 0) -> None:
        """Raises UserError: the folder has no portions, or one that does not fit the others."""
        if patches < 1 or length < 1:
            raise UserError(f"patches and length must be >= 1, got {patches} and {length}")
        self.patches, self.length, self.seed = patches, length, seed
        self.parts = list(read_portions(Path(folder)))  # as they are: gigabytes, which nobody wants twice
        if not self.parts:
            raise UserError(f"'{folder}' has no patches: python -m {self.command} {folder} makes them")
        first = self.parts[0]
        if any(part.shape[1:] != first.shape[1:] or part.dtype != first.dtype for part in self.parts):
            raise UserError(f"the portions of '{folder}' are not all of one width: they are of different models")
        self.ends = np.cumsum([len(part) for part in self.parts])

    def __len__(self) -> int:
        return self.length

    def chosen(self, index: int, count: int) -> NDArray[np.int64]:
        """Which of ``count`` patches make an item, [patches]."""
        first = number_of(index, self.length) * self.patches
        return choose(self.seed, np.arange(first, first + self.patches), "patch", count)

    def places(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The part in which each of these is of all that all parts have, and its number there, counted from its end."""
        where = np.searchsorted(self.ends, numbers, side="right")
        return where, numbers - self.ends[where]


class PatchErrors(Patches):
    """What ``scripts.sample_errors`` kept.

    Items are {"seen": [patches, D], "error": [patches, 4 C], "metric": [C, C]}, all float32; the arguments are
    ``Patches``'s.
    """

    command = "scripts.sample_errors"

    def __init__(self, folder: str, patches: int = 256, length: int = 100_000, seed: int = 0) -> None:
        """Raises UserError: as ``Patches``, or there is no metric, or what is kept are no rows."""
        super().__init__(folder, patches, length, seed)
        if self.parts[0].ndim != 2:
            raise UserError(f"'{folder}' has no errors in patches: python -m {self.command} {folder} makes them")
        self.metric = read_array(Path(folder) / METRIC, "metric").astype(np.float32)
        self.width = PATCH**2 * len(self.metric)

    def __getitem__(self, index: int) -> dict[str, Any]:
        chosen = zip(*self.places(self.chosen(index, int(self.ends[-1]))), strict=True)
        rows = np.stack([self.parts[part][number] for part, number in chosen]).astype(np.float32)
        return {"seen": rows[:, : -self.width], "error": rows[:, -self.width :], "metric": self.metric}

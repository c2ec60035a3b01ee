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
PATCH_CELLS = 4  # in a patch of a latent: two by two


def portion(folder: Path, number: int) -> Path:
    """The file of a portion of patches."""
    return folder / f"{number:04}.npy"


def read_portions(folder: Path) -> Iterator[NDArray[np.generic]]:
    """The portions of a folder in order, [N, D + 4 C] each."""
    return (read_array(path, "file of patches") for path in sorted(folder.glob("[0-9]*.npy")))


class PatchRows(Dataset[dict[str, Any]]):
    """Rows of patches that a command kept, from anywhere in its folder, a function of (seed, index).

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
        if any(part.ndim != 2 or part.shape[1] != self.parts[0].shape[1] for part in self.parts):
            raise UserError(f"the portions of '{folder}' are not all of one width: they are of different models")
        self.ends = np.cumsum([len(part) for part in self.parts])

    def __len__(self) -> int:
        return self.length

    def rows(self, index: int) -> NDArray[np.float32]:
        """The rows of an item, [patches, N]."""
        first = number_of(index, self.length) * self.patches
        numbers = choose(self.seed, np.arange(first, first + self.patches), "patch", int(self.ends[-1]))
        where = np.searchsorted(self.ends, numbers, side="right")
        from_end = numbers - self.ends[where]
        chosen = [self.parts[part][number] for part, number in zip(where, from_end, strict=True)]
        return np.stack(chosen).astype(np.float32)


class PatchErrors(PatchRows):
    """What ``scripts.sample_errors`` kept.

    Items are {"seen": [patches, D], "error": [patches, 4 C], "metric": [C, C]}, all float32; the arguments are
    ``PatchRows``'s.
    """

    command = "scripts.sample_errors"

    def __init__(self, folder: str, patches: int = 256, length: int = 100_000, seed: int = 0) -> None:
        """Raises UserError: as ``PatchRows``, or there is no metric."""
        super().__init__(folder, patches, length, seed)
        self.metric = read_array(Path(folder) / METRIC, "metric").astype(np.float32)
        self.width = PATCH_CELLS * len(self.metric)

    def __getitem__(self, index: int) -> dict[str, Any]:
        rows = self.rows(index)
        return {"seen": rows[:, : -self.width], "error": rows[:, -self.width :], "metric": self.metric}

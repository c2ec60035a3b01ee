"""Patches of pictures as a model draws them, beside what they truly are, as a data set for a retoucher."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ldm.data.errors import EMPTY, PATCH, Patches
from ldm.draws import uniform
from ldm.util import UserError


def drawing_record(size: int, channels: int, cells: int) -> np.dtype[Any]:
    """What is kept of a scene ``size`` pixels wide: as it was drawn and is, its latent, which patches are on things."""
    picture = (np.uint8, (3, size, size))
    latent, near = (np.float16, (channels, cells, cells)), (np.bool_, (cells // PATCH, cells // PATCH))
    return np.dtype([("drawn", *picture), ("true", *picture), ("latent", *latent), ("near", *near)])


def _are_drawings(record: np.dtype[Any]) -> bool:
    if record.names is None or not {"drawn", "latent"} <= set(record.names):
        return False
    size, latent = record["drawn"].shape[-1:], record["latent"].shape
    return len(size) == 1 and len(latent) == 3 and record == drawing_record(size[0], latent[0], latent[2])


class PatchPictures(Patches):
    """Patches of what ``scripts.sample_patches`` kept, which begin at any cell.

    Items are {"around": [patches, 16 C] (float16), "drawn": [patches, 3 side^2] (bytes), "true": like drawn}: latents
    about each patch, its pixels as they were drawn and as they are.

    Args:
        folder, patches, length, seed: as ``Patches``'s.
    """

    command = "scripts.sample_patches"

    def __init__(self, folder: str, patches: int = 256, length: int = 100_000, seed: int = 0) -> None:
        """Raises UserError: as ``Patches``, or what is kept are no drawn pictures."""
        super().__init__(folder, patches, length, seed)
        if not self.ends[-1] or not _are_drawings(self.parts[0].dtype):
            raise UserError(f"'{folder}' has no drawn pictures: python -m {self.command} {folder} makes them")
        self.cells = self.parts[0]["latent"].shape[-1]
        self.cell = self.parts[0]["drawn"].shape[-1] // self.cells
        self.worth = np.flatnonzero(self._worth(np.concatenate([part["near"] for part in self.parts])))

    def _worth(self, near: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which patches [N, h-1, w-1] of pictures are learned from, of those that begin at each cell but the last."""
        cells = near.repeat(PATCH, axis=1).repeat(PATCH, axis=2)
        on = cells[:, :-1, :-1] | cells[:, 1:, :-1] | cells[:, :-1, 1:] | cells[:, 1:, 1:]
        others = uniform(self.seed, np.arange(on.size), "empty").reshape(on.shape) < EMPTY
        return on | others

    def __getitem__(self, index: int) -> dict[str, Any]:
        begins = self.cells - PATCH + 1
        numbers = self.worth[self.chosen(index, len(self.worth))]
        scenes, tops, lefts = np.unravel_index(numbers, (self.ends[-1], begins, begins))
        chosen = zip(*self.places(scenes), tops, lefts, strict=True)
        cut = [self._cut(self.parts[part][scene], top, left) for part, scene, top, left in chosen]
        return {name: np.stack([one[name] for one in cut]) for name in ("around", "drawn", "true")}

    def _cut(self, record: np.void, top: int, left: int) -> dict[str, NDArray[Any]]:
        rows, columns = (np.arange(begin - 1, begin + PATCH + 1).clip(0, self.cells - 1) for begin in (top, left))
        down, across = (slice(begin * self.cell, (begin + PATCH) * self.cell) for begin in (top, left))
        pixels = {name: record[name][:, down, across].ravel() for name in ("drawn", "true")}
        return {"around": record["latent"][:, rows[:, None], columns].ravel(), **pixels}

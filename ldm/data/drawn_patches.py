"""Patches of pictures as a model draws them, beside what they truly are, as a data set for a retoucher."""

from __future__ import annotations

from typing import Any

import numpy as np

from ldm.data.errors import PatchRows
from ldm.util import UserError


class PatchPictures(PatchRows):
    """What ``scripts.sample_patches`` kept.

    Items are {"around": [patches, 16 C], "drawn": [patches, 3 side^2], "true": like drawn}, all float32: latents about
    each patch, its pixels as they were drawn and as they are, in [-1, 1].

    Args:
        side: pixels along each side of a patch.
        folder, patches, length, seed: as ``PatchRows``'s.
    """

    command = "scripts.sample_patches"

    def __init__(self, folder: str, side: int = 16, patches: int = 256, length: int = 100_000, seed: int = 0) -> None:
        """Raises UserError: as ``PatchRows``, or the patches are too narrow to have that many pixels."""
        super().__init__(folder, patches, length, seed)
        self.pixels = 3 * side**2
        if self.parts[0].shape[1] <= 2 * self.pixels:
            raise UserError(f"the patches in '{folder}' have less than {side} pixels a side")

    def __getitem__(self, index: int) -> dict[str, Any]:
        rows = self.rows(index)
        around, drawn, true = np.split(rows, [-2 * self.pixels, -self.pixels], axis=1)
        return {"around": around, "drawn": drawn, "true": true}

"""Planted faults of colour."""

from __future__ import annotations

import numpy as np
from skimage.color import deltaE_ciede2000, lab2rgb

from ldm.world.judge import to_lab


def recoloured(picture: np.ndarray, where: np.ndarray, amount: float) -> np.ndarray:
    """Shift a part's mean colour by a CIEDE2000 of ``amount``, in a direction in which there is room."""
    lab = to_lab(picture)
    best = picture
    for direction in ([-1, 0, 0], [1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]):
        low, high = 0.0, 60.0
        for _ in range(12):
            middle = (low + high) / 2
            changed = lab.copy()
            changed[where] += np.asarray(direction, np.float32) * middle
            rgb = np.clip(lab2rgb(changed), 0, 1).astype(np.float32) * 2 - 1
            shift = deltaE_ciede2000(to_lab(rgb)[where].mean(0), lab[where].mean(0))
            low, high = (middle, high) if shift < amount else (low, middle)
        if abs(shift - amount) < 0.3:
            return rgb
        best = rgb
    return best

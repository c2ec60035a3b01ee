"""Pictures that no camera took, with the statistics of those that one did: dead leaves, 1/f noise; plain and pale ones.

An autoencoder and a model that inverts photographs need more kinds of pictures than a few photographs offer.
Sources: Ruderman 1997 and Lee, Mumford and Huang 2001 (dead leaves), Field 1987 (spectra of natural pictures).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ldm.draws import number_of, uniform
from ldm.util import UserError, instantiate_from_config

Array = NDArray[np.float32]

LEAVES = 160
SMALLEST, LARGEST = 0.03, 0.45  # radius of a leaf, in widths of the picture


def dead_leaves(size: int, rng: np.random.Generator) -> Array:
    """Discs of all sizes that lie over one another, [size, size, 3] in [-1, 1]; radii have density 1 / r^3."""
    picture = np.broadcast_to(rng.uniform(-1, 1, 3).astype(np.float32), (size, size, 3)).copy()
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    draws = rng.uniform(size=LEAVES)
    radii = (SMALLEST**-2 + draws * (LARGEST**-2 - SMALLEST**-2)) ** -0.5
    shades = rng.uniform(-1, 1, LEAVES)
    for radius, shade in zip(radii.astype(np.float32), shades, strict=True):
        x, y = rng.uniform(0, 1, 2).astype(np.float32)
        wide = rng.uniform(0.6, 1.0, 2).astype(np.float32)
        distance = np.hypot((axis[None] - x) / wide[0], (axis[:, None] - y) / wide[1])
        inside = np.clip(0.5 + (radius - distance) * size, 0, 1)[..., None]
        colour = np.clip(shade + rng.normal(0, 0.25, 3), -1, 1).astype(np.float32)
        picture += inside * (colour - picture)
    return picture


def pink_noise(size: int, rng: np.random.Generator) -> Array:
    """Noise whose amplitudes fall as 1 / frequency^a, a from 0.8 to 1.6, mostly grey; [size, size, 3] in [-1, 1]."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = 1 / size
    white = np.fft.rfft2(rng.normal(size=(3, size, size)))
    waves = np.fft.irfft2(white / frequency ** rng.uniform(0.8, 1.6), s=(size, size))
    waves /= waves.std(axis=(1, 2), keepdims=True)
    axes = np.array([[1, 1, 1], [0.4, 0, -0.4], [-0.2, 0.4, -0.2]])  # brightness, red against blue, green against both
    picture = np.einsum("kc,khw->hwc", axes, waves)
    return np.clip(rng.uniform(-0.5, 0.5) + rng.uniform(0.1, 0.5) * picture, -1, 1).astype(np.float32)


def soft_blobs(size: int, rng: np.random.Generator) -> Array:
    """One to four large blobs with soft edges on a plain ground, every third one black, [size, size, 3] in [-1, 1].

    Much of a photograph through a microscope or at night is one plain, often black, area.
    """
    ground = np.full(3, -1.0) if rng.uniform() < 1 / 3 else rng.uniform(-1, 1, 3)
    picture = np.broadcast_to(ground.astype(np.float32), (size, size, 3)).copy()
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    for _ in range(rng.integers(1, 5)):
        (x, y), radius = rng.uniform(0.1, 0.9, 2), rng.uniform(0.1, 0.55)
        softness = rng.uniform(0.02, 0.6) * radius
        inside = np.clip(0.5 + (radius - np.hypot(axis[None] - x, axis[:, None] - y)) / softness, 0, 1)[..., None]
        slope = rng.uniform(-0.5, 0.5, (2, 3))
        tilt = (axis[None, :, None] - x) * slope[0] + (axis[:, None, None] - y) * slope[1]
        picture += inside.astype(np.float32) * ((rng.uniform(-1, 1, 3) + tilt).astype(np.float32) - picture)
    return np.clip(picture, -1, 1)


MAKERS: dict[str, Callable[[int, np.random.Generator], Array]] = {
    "leaves": dead_leaves,
    "noise": pink_noise,
    "blobs": soft_blobs,
}


def fade(image: Array, draws: NDArray[np.float64]) -> Array:
    """A pale version: contrast 0.1 to 0.5, lifted so far that the brightest points come near white; two draws."""
    contrast = np.float32(0.1 + 0.4 * draws[0])
    return np.clip(image * contrast + (1 - contrast) * np.float32(0.5 + 0.5 * draws[1]), -1, 1).astype(np.float32)


class SyntheticPictures(Dataset[dict[str, Any]]):
    """Pictures of some kinds in turn; every item is a function of (seed, index).

    Items are {"image": [size, size, 3] float32 in [-1, 1], "caption": ""}.

    Args:
        size: width and height in pixels.
        length: how many items.
        seed: another seed, other items.
        kinds: of 'leaves' (dead leaves), 'noise' (1/f) and 'blobs' (soft ones on a plain ground).
    """

    def __init__(
        self, size: int = 64, length: int = 10_000, seed: int = 0, kinds: Sequence[str] = ("leaves", "noise")
    ) -> None:
        """Raises UserError: ``size`` is under 8, ``length`` under 1, or no kind, or one that there is not."""
        if size < 8 or length < 1:
            raise UserError(f"synthetic pictures need size >= 8 and length >= 1, got {size} and {length}")
        if not kinds or not set(kinds) <= set(MAKERS):
            raise UserError(f"kinds of synthetic pictures are {', '.join(MAKERS)}; got {', '.join(kinds) or 'none'}")
        self.size, self.length, self.seed, self.kinds = size, length, seed, tuple(kinds)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        number = number_of(index, self.length)
        rng = np.random.default_rng([self.seed, number])
        make = MAKERS[self.kinds[number % len(self.kinds)]]
        return {"image": make(self.size, rng), "caption": ""}


class Faded(Dataset[dict[str, Any]]):
    """Another data set's items, a share of them pale: inversion of pale pictures is what breaks first.

    Args:
        data: a node {target, params} of a data set whose items have an "image" in [-1, 1].
        share: of the items that are faded.
        seed: another seed, other items.
    """

    def __init__(self, data: Mapping[str, Any], share: float = 0.3, seed: int = 0) -> None:
        """Raises UserError: ``share`` is not between 0 and 1."""
        if not 0 <= share <= 1:
            raise UserError(f"share is between 0 and 1, got {share}")
        self.data: Any = instantiate_from_config(data)
        self.share, self.seed = share, seed

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = dict(self.data[index])
        draws = [float(uniform(self.seed, index % len(self), name)[0]) for name in ("fade", "contrast", "lift")]
        if draws[0] < self.share:
            item["image"] = fade(item["image"], np.array(draws[1:]))
        return item

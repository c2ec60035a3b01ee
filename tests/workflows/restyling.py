"""What the tests of restyling share: small pictures, and the results of a run as numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ldm.workflows.restyle.plan import StyleIDOptions
from ldm.workflows.restyle.styleid import styleid

STEPS = 5
CLOSE = 2  # levels of 255


def picture(path: Path, seed: int, size: tuple[int, int] = (32, 32)) -> Path:
    """A smooth colourful picture of (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size[::-1], Image.Resampling.BICUBIC).save(path)
    return path


def one(options: StyleIDOptions, **changes: Any) -> StyleIDOptions:
    """Only the first pair."""
    return replace(options, cnt=f"{options.cnt}/a.png", sty=f"{options.sty}/s.png", **changes)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path), dtype=int)


def made(options: StyleIDOptions, model: Any) -> dict[str, np.ndarray]:
    return {result.path.stem: pixels(result.path) for result in styleid(options, model)}


def only(options: StyleIDOptions, model: Any) -> np.ndarray:
    (value,) = made(options, model).values()
    return value


def difference(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> int:
    assert a.keys() == b.keys()
    return max(abs(a[name] - b[name]).max() for name in a)

"""The pictures of docs/sampling.md have a command that makes them again."""

from __future__ import annotations

import argparse

import numpy as np
from PIL import Image

from benchmarks.sampling_pictures import SHEETS, box_mask, frames, sheet, sketch
from ldm.workflows.models import open_model
from ldm.workflows.studio import Studio
from tests.helpers import ROOT


def test_each_sheet_is_on_the_page() -> None:
    page = (ROOT / "docs/sampling.md").read_text()
    assert all(f"(pictures/{name}.png)" in page and (ROOT / f"docs/pictures/{name}.png").is_file() for name in SHEETS)


def test_a_sheet_shows_each_pixel_enlarged() -> None:
    made = sheet([(Image.new("RGB", (8, 8), "red"), "a"), (Image.new("RGB", (8, 4), "blue"), "b")], factor=3)
    pixels = np.asarray(made).reshape(-1, 3)
    assert made.width == 2 * 24 + 3 * 4 and (pixels == (255, 0, 0)).all(axis=1).sum() == 24 * 24
    assert float(box_mask(64, 0.5, 0, 1, 1).mean()) == 0.5 and sketch(64).size == (64, 64)


def test_a_sheet_of_the_small_model() -> None:
    studio = Studio.of(open_model(device="cpu")[0])
    made = frames(studio, argparse.Namespace(seed=1, steps=1))
    side = made[0][0].width
    assert [one.size for one, _ in made[1:]] == [(side * 3 // 2, side), (side * 3 // 2, side * 3 // 2)]

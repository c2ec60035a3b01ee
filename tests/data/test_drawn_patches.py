"""Drawn and true patches from a folder: what an item is, and folders that do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ldm.arrays import write_array
from ldm.data.drawn_patches import PatchPictures
from ldm.data.errors import portion
from ldm.util import UserError


def test_items_are_latents_about_patches_and_their_pixels(tmp_path: Path) -> None:
    rows = np.repeat(np.arange(8, dtype=np.float16)[:, None], 32 + 2 * 12, axis=1)
    rows[:, 32:44] += 0.25
    rows[:, 44:] += 0.5
    write_array(portion(tmp_path, 0), rows[:5])
    write_array(portion(tmp_path, 1), rows[5:])
    pictures = PatchPictures(str(tmp_path), side=2, patches=6, length=20)
    item = pictures[3]
    assert item["around"].shape == (6, 32) and item["drawn"].shape == item["true"].shape == (6, 12)
    number = item["around"][:, :1]
    assert np.array_equal(item["drawn"], np.repeat(number + 0.25, 12, axis=1))
    assert np.array_equal(item["true"], np.repeat(number + 0.5, 12, axis=1))
    assert len({float(value) for index in range(20) for value in pictures[index]["around"][:, 0]}) == 8


def test_folders_without_patches_and_with_too_narrow_ones_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no patches: python -m scripts\.sample_patches"):
        PatchPictures(str(tmp_path))
    write_array(portion(tmp_path, 0), np.zeros((3, 24), np.float16))
    with pytest.raises(UserError, match="less than 2 pixels a side"):
        PatchPictures(str(tmp_path), side=2)

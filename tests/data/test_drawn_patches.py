"""Drawn and true patches from a folder: what an item is, which places are chosen, and folders that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ldm.arrays import write_array
from ldm.data.drawn_patches import PatchPictures, drawing_record
from ldm.data.errors import EMPTY, portion
from ldm.util import UserError

CELLS, CELL, CHANNELS = 6, 4, 2


def drawings(count: int, first: int) -> NDArray[Any]:
    """Records whose numbers tell the scene, and the cell that they are of: latents, and pixels of the first channel."""
    records = np.zeros(count, drawing_record(CELLS * CELL, CHANNELS, CELLS))
    place = np.arange(CELLS**2).reshape(CELLS, CELLS)
    for number, record in enumerate(records, first):
        record["latent"][0], record["latent"][1] = number, place
        record["drawn"][0] = place.repeat(CELL, axis=0).repeat(CELL, axis=1)
        record["drawn"][1], record["true"][:] = number, number + 100
    return records


def write(folder: Path, near: Any = True) -> None:
    for number, (count, first) in enumerate([(3, 0), (2, 3)]):
        records = drawings(count, first)
        records["near"] = near
        write_array(portion(folder, number), records)


def test_items_are_patches_from_any_cell_with_the_latents_about_them(tmp_path: Path) -> None:
    write(tmp_path)
    pictures = PatchPictures(str(tmp_path), patches=6, length=400)
    seen = set()
    for number in range(400):
        item = pictures[number]
        assert {name: value.shape for name, value in item.items()} == {
            "around": (6, 16 * CHANNELS), "drawn": (6, 3 * 64), "true": (6, 3 * 64)
        }  # fmt: skip
        scenes, places = item["around"].reshape(6, CHANNELS, 4, 4).transpose(1, 0, 2, 3)
        cells = item["drawn"].reshape(6, 3, 8, 8)
        assert np.array_equal(cells[:, 0, ::CELL, ::CELL], places[:, 1:3, 1:3]), "pixels are those of the inner cells"
        assert np.array_equal(cells[:, 1, 0, 0], scenes[:, 0, 0])
        assert np.array_equal(item["true"], np.repeat(scenes[:, 0, :1] + 100, 3 * 64, axis=1))
        rows, columns = np.divmod(places, CELLS)
        assert np.array_equal(np.diff(rows[:, 1:3, 1], axis=1), np.ones((6, 1))), "one cell under another"
        for lines in (rows[:, :, 0], columns[:, 0]):
            assert np.array_equal(lines[:, 0], np.maximum(lines[:, 1] - 1, 0)), "at the border it is repeated"
            assert np.array_equal(lines[:, 3], np.minimum(lines[:, 2] + 1, CELLS - 1))
        seen |= set(zip(scenes[:, 0, 0], places[:, 1, 1], strict=True))
    assert len(seen) == 5 * 25, "from every cell of every scene but the last"
    assert np.array_equal(PatchPictures(str(tmp_path), patches=6, length=400)[7]["around"], pictures[7]["around"])
    assert not np.array_equal(PatchPictures(str(tmp_path), 6, 400, seed=1)[7]["around"], pictures[7]["around"])


def test_all_on_things_are_chosen_and_some_of_the_others(tmp_path: Path) -> None:
    near = np.zeros((3, 3), bool)
    near[0, 0] = True
    write(tmp_path, near)
    on, others = PatchPictures(str(tmp_path)).worth, np.zeros((5, 5, 5), bool)
    others.ravel()[on] = True
    assert others[:, :2, :2].all(), "those that have a cell of a thing's patch"
    others[:, :2, :2] = False
    assert 0 < others.sum() < 3 * EMPTY * others.size


def test_folders_without_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no patches: python -m scripts\.sample_patches"):
        PatchPictures(str(tmp_path))
    write_array(portion(tmp_path, 0), np.zeros((3, 24), np.float16))
    with pytest.raises(UserError, match=r"has no drawn pictures: python -m scripts\.sample_patches"):
        PatchPictures(str(tmp_path))
    others = (
        [("a", "f4")],
        [("drawn", "u1"), ("latent", "f2")],
        [("drawn", "u1", (3, 8, 8)), ("latent", "f2", (2, 4, 4))],
    )
    for records in (*(np.zeros(3, fields) for fields in others), drawings(0, 0)):
        write_array(portion(tmp_path, 0), records)
        with pytest.raises(UserError, match="has no drawn pictures"):
            PatchPictures(str(tmp_path))
    write_array(portion(tmp_path, 0), np.zeros(3, [("drawn", "U4")]))
    with pytest.raises(UserError, match="holds no numbers"):
        PatchPictures(str(tmp_path))
    write(tmp_path)
    write_array(portion(tmp_path, 2), np.zeros(2, drawing_record(16, CHANNELS, 4)))
    with pytest.raises(UserError, match="of different models"):
        PatchPictures(str(tmp_path))

"""Errors in patches from a folder: what an item is, and folders that have none or do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ldm.arrays import write_array
from ldm.data.errors import METRIC, PatchErrors, portion
from ldm.util import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two portions of five and three patches: each row is its number, the errors are its number and a half."""
    rows = np.repeat(np.arange(8, dtype=np.float16)[:, None], 10 + 8, axis=1)
    rows[:, 10:] += 0.5
    write_array(portion(tmp_path, 0), rows[:5])
    write_array(portion(tmp_path, 1), rows[5:])
    write_array(tmp_path / METRIC, np.eye(2, dtype=np.float32))
    return tmp_path


def test_items_are_patches_from_anywhere_with_their_errors(folder: Path) -> None:
    errors = PatchErrors(str(folder), patches=6, length=50)
    items = [errors[number] for number in range(50)]
    assert all(item["seen"].shape == (6, 10) and item["error"].shape == (6, 8) for item in items)
    assert all(np.array_equal(item["seen"][:, :8] + 0.5, item["error"]) for item in items)
    assert {float(value) for item in items for value in item["seen"][:, 0]} == set(range(8))
    assert items[0]["seen"].dtype == items[0]["metric"].dtype == np.float32 and items[0]["metric"].shape == (2, 2)


def test_an_item_is_a_function_of_seed_and_number(folder: Path) -> None:
    one, again, other = (PatchErrors(str(folder), patches=6, length=50, seed=seed) for seed in (3, 3, 4))
    assert all(np.array_equal(one[number]["seen"], again[number]["seen"]) for number in (7, -1))
    assert any(not np.array_equal(one[number]["seen"], other[number]["seen"]) for number in range(5))
    assert not np.array_equal(one[0]["seen"], one[1]["seen"])
    with pytest.raises(IndexError):
        one[50]


def test_folders_without_patches_and_of_several_models_are_refused(folder: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=r"has no patches: python -m scripts\.sample_errors"):
        PatchErrors(str(empty))
    with pytest.raises(UserError, match="patches and length must be >= 1, got 0"):
        PatchErrors(str(folder), patches=0)
    write_array(portion(folder, 2), np.zeros((4, 7), np.float16))
    with pytest.raises(UserError, match="not all of one width"):
        PatchErrors(str(folder))
    portion(folder, 2).unlink()
    (folder / METRIC).unlink()
    with pytest.raises(UserError, match="cannot read the metric"):
        PatchErrors(str(folder))

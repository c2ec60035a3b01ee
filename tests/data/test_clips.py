"""Clips from files and folders: what is read, what is left out, what is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ldm.data.clips import ClipFolder, motion_of
from ldm.pictures.film import Film, write_film
from ldm.util import UserError
from tests.pictures.test_film import moving


def films(folder: Path) -> Path:
    """A GIF of 9 frames with a caption, an mp4 of 6, a folder of 7 frames, a film of 2, and a broken one."""
    folder.mkdir()
    write_film(moving(9), folder / "a.gif")
    (folder / "a.txt").write_text("a red square\n")
    write_film(moving(6), folder / "b.mp4")
    (folder / "c").mkdir()
    for i, frame in enumerate(moving(7).frames):
        frame.save(folder / "c" / f"{i}.png")
    write_film(moving(2), folder / "short.gif")
    (folder / "broken.mp4").write_bytes(b"nothing")
    return folder


def test_all_films_that_are_long_enough(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = ClipFolder(str(films(tmp_path / "films")), frames=5, size=32)
    assert [path.name for path in data.paths] == ["a.gif", "b.mp4", "c"]
    assert "short.gif" in caplog.text and "broken.mp4" in caplog.text
    items = [data[i] for i in range(3)]
    assert all(item["frames"].shape == (5, 32, 32, 3) and np.abs(item["frames"]).max() <= 1 for item in items)
    assert [item["caption"] for item in items] == ["a red square", "", ""]
    assert [round(float(item["fps"])) for item in items] == [10, 10, 8]
    assert np.array_equal(data[0]["frames"], items[0]["frames"])
    assert ClipFolder(str(tmp_path / "films"), frames=5, size=32, step=2).paths[0].name == "a.gif"
    others = ClipFolder(str(tmp_path / "films"), frames=3, size=32, repeats=6)
    parts = {others[i]["frames"].tobytes() for i in range(0, len(others), len(others.paths))}
    assert len(others) == 6 * len(others.paths) and len(parts) > 1


def test_the_motion_number_is_how_much_changes() -> None:
    still = np.zeros((4, 8, 8, 3), np.float32)
    slow = still + 0.01 * np.arange(4, dtype=np.float32)[:, None, None, None]
    assert motion_of(still) == 0 < motion_of(slow) < motion_of(3 * slow) <= 255
    assert motion_of(100 * slow) == 255


def test_bad_folders_and_settings(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        ClipFolder(str(tmp_path / "none"))
    write_film(Film(moving(3).frames), tmp_path / "a.gif")
    with pytest.raises(UserError, match="no film of 8 frames"):
        ClipFolder(str(tmp_path))
    for wrong in ({"frames": 1}, {"step": 0}, {"motion": 300}):
        with pytest.raises(UserError):
            ClipFolder(str(tmp_path), **wrong)

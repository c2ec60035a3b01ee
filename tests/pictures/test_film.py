"""Films: what is written is read again; what is none is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm.pictures import film as films
from ldm.pictures.film import Film, film_sheet, read_film, write_film
from ldm.util import UserError


def moving(frames: int = 5, width: int = 48, height: int = 32) -> Film:
    made = []
    for i in range(frames):
        pixels = np.full((height, width, 3), (30, 60, 200), np.uint8)
        pixels[8:24, 4 + 4 * i : 20 + 4 * i] = (220, 40, 40)
        made.append(Image.fromarray(pixels))
    return Film(made, 10.0)


@pytest.mark.parametrize(("suffix", "close"), [(".mp4", 12), (".gif", 6), (".webp", 12)])
def test_what_is_written_is_read_again(suffix: str, close: float, tmp_path: Path) -> None:
    film, path = moving(), tmp_path / f"film{suffix}"
    write_film(film, path)
    again = read_film(path)
    assert len(again.frames) == 5 and again.size == (32, 48) and again.fps == pytest.approx(10)
    for before, after in zip(film.frames, again.frames, strict=True):
        assert np.abs(np.asarray(before, float) - np.asarray(after, float)).mean() < close
    assert len(read_film(path, most=2).frames) == 2


def test_odd_sides_and_folders(tmp_path: Path) -> None:
    film = moving(3, 33, 27)
    write_film(film, tmp_path / "odd.mp4")
    assert read_film(tmp_path / "odd.mp4").size == (28, 34)
    (tmp_path / "frames").mkdir()
    for i in (10, 2, 1):
        film.frames[i % 3].save(tmp_path / "frames" / f"{i}.png")
    again = read_film(tmp_path / "frames")
    for frame, i in zip(again.frames, (1, 2, 10), strict=True):
        assert np.array_equal(np.asarray(frame), np.asarray(film.frames[i % 3]))


def test_the_sheet_shows_what_changes() -> None:
    still = Film([moving().frames[0]] * 3)
    cells = np.asarray(film_sheet(still))
    assert cells.shape[0] > 2 * 32 and (cells[40, 30] == 128).all()
    changed = np.asarray(film_sheet(moving()))[2 * 2 + 32 :, :]
    assert np.abs(changed.astype(int) - 128).max() == 128 or changed.max() == 255


def test_bad_films_are_named(tmp_path: Path) -> None:
    (tmp_path / "none.mp4").write_bytes(b"no film at all" * 50)
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "cut.gif").write_bytes(b"GIF89a\x01")
    (tmp_path / "folder").mkdir()
    for name, words in (("none.mp4", "no film"), ("empty.mp4", "no film"), ("cut.gif", "cut.gif"),
                        ("missing.mp4", "there is no film"), ("folder", "folder")):  # fmt: skip
        with pytest.raises(UserError, match=words):
            read_film(tmp_path / name)
    Image.new("RGB", (8, 8)).save(tmp_path / "folder" / "1.png")
    Image.new("RGB", (8, 9)).save(tmp_path / "folder" / "2.png")
    with pytest.raises(UserError, match="different sizes, 8 x 8 and 8 x 9"):
        read_film(tmp_path / "folder")
    with pytest.raises(UserError, match=r"written as \.mp4"):
        write_film(moving(), tmp_path / "film.avi")


def test_a_film_that_was_cut_off_is_named(tmp_path: Path) -> None:
    write_film(moving(40), tmp_path / "whole.mp4")
    whole = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cut\.mp4"):  # an mp4 file has its table at the end
        read_film(tmp_path / "cut.mp4")


def test_a_full_disk_in_the_middle_leaves_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "film.mp4"
    write_film(moving(), path)
    before = path.read_bytes()

    def full(film: Film, place: Path) -> None:
        place.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(films, "_write_mp4", full)
    with pytest.raises(UserError, match="No space left"):
        write_film(moving(8), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]

"""Films: frames from folders, mp4 and the like, GIF and WebP, and back; a sheet that shows what changes."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageSequence

from ldm.pictures.images import StrPath, list_images, load_image, make_grid, to_rgb
from ldm.pictures.opening import most_pixels, read_image
from ldm.util import UserError, atomic_write

log = logging.getLogger(__name__)

FILM_SUFFIXES = frozenset((".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg"))
ANIMATED_SUFFIXES = frozenset((".gif", ".webp", ".png", ".apng"))
ANIMATIONS = ("GIF", "WEBP", "PNG")
FORMATS = ("mp4", "gif", "webp", "sheet")
USUAL_FPS = 8.0  # of a folder of frames, which says nothing about it
MOST_FRAMES = 10_000
SHEET_COLUMNS = 8
DIFFERENCE_GAIN = 4  # how much stronger than they are differences are shown

Take = Callable[[Image.Image], Image.Image]  # what is kept of a frame


@dataclass(frozen=True)
class Film:
    """Frames of one size, upright 8-bit RGB, and how many a second."""

    frames: list[Image.Image]
    fps: float = USUAL_FPS

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.frames[0].height, self.frames[0].width


def is_film(path: StrPath) -> bool:
    """Whether a file is a film: it is called like one, or is an animated picture."""
    path = Path(path)
    if path.suffix.lower() not in ANIMATED_SUFFIXES:
        return path.suffix.lower() in FILM_SUFFIXES
    try:
        with Image.open(path, formats=ANIMATIONS) as image:
            return getattr(image, "n_frames", 1) > 1
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def read_film(path: StrPath, most: int = MOST_FRAMES, fit: Take | None = None) -> Film:
    """The frames of a film file, of an animated picture, or of a folder of pictures in natural order.

    Args:
        most: frames that are read; the rest of a longer film is left.
        fit: what is done to each frame as it comes, so that a film of large ones fits into memory.

    Raises:
        UserError: it is missing, no film, has no frames, or frames of different sizes.
    """
    path = Path(path)
    sizes: dict[tuple[int, int], None] = {}

    def take(frame: Image.Image) -> Image.Image:
        sizes[frame.size] = None
        return frame if fit is None else fit(frame)

    if path.is_dir():
        film = Film([take(load_image(file)) for file in list_images(path)[:most]])
    elif not path.exists():
        raise UserError(f"there is no film '{path}'")
    elif path.suffix.lower() in ANIMATED_SUFFIXES:
        film = _of_animation(path, most, take)
    else:
        film = _of_container(path, most, take)
    if not film.frames:
        raise UserError(f"'{path}' has no frames")
    if len(sizes) > 1:
        first, other = [" x ".join(map(str, size)) for size in sizes][:2]
        raise UserError(f"the frames of '{path}' have different sizes, {first} and {other}; a film has one")
    return film


def _of_animation(path: Path, most: int, take: Take) -> Film:
    """The frames of a GIF, WebP or PNG file."""
    first = read_image(path)  # with its limits
    with Image.open(path, formats=ANIMATIONS) as image:
        if getattr(image, "n_frames", 1) == 1:
            return Film([take(to_rgb(first, str(path)))])
        frames: list[Image.Image] = []
        durations: list[float] = []
        try:
            for frame in ImageSequence.Iterator(image):
                if len(frames) == most:
                    break
                frames.append(take(to_rgb(frame.convert("RGBA"))))
                durations.append(float(frame.info.get("duration") or 0))
        except (OSError, ValueError, SyntaxError) as error:
            raise UserError(f"the film '{path}' cannot be read: {error}") from error
    seconds = sum(durations) / 1000
    return Film(frames, len(frames) / seconds if seconds > 0 else USUAL_FPS)


def _of_container(path: Path, most: int, take: Take) -> Film:
    """The frames of the first video stream of an mp4 file or the like."""
    frames: list[Image.Image] = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UserError(f"'{path}' has no video stream")
            stream = container.streams.video[0]
            if stream.width * stream.height > most_pixels():
                raise UserError(f"the frames of '{path}' have more pixels than can be: {stream.width}x{stream.height}")
            rate = stream.average_rate or stream.guessed_rate
            for frame in container.decode(stream):
                frames.append(take(frame.to_image()))
                if len(frames) == most:
                    break
    except av.FFmpegError as error:
        if not frames:
            raise UserError(f"'{path}' is no film that can be read: {error.strerror}") from error
        log.warning("'%s' ends after %d frames: %s", path, len(frames), error.strerror)
    return Film(frames, float(rate) if rate else USUAL_FPS)


def write_film(film: Film, path: StrPath) -> None:
    """Write a film in the format of the path's suffix: .mp4 (H.264), .gif or .webp; an older file stays on failure.

    Raises:
        UserError: another suffix, no frames, or it cannot be written.
    """
    path = Path(path)
    writers = {".mp4": _write_mp4, ".gif": _write_gif, ".webp": _write_webp}
    if path.suffix.lower() not in writers:
        raise UserError(f"a film is written as {', '.join(writers)}, not as '{path.suffix}'")
    if not film.frames:
        raise UserError("a film without frames is none")
    with atomic_write(path) as temporary, _ffmpeg_errors(path):
        writers[path.suffix.lower()](film, temporary)


@contextlib.contextmanager
def _ffmpeg_errors(path: Path) -> Iterator[None]:
    """What FFmpeg cannot write is an OSError as of any file; some of its errors are none."""
    try:
        yield
    except av.FFmpegError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _write_mp4(film: Film, path: Path) -> None:
    """H.264 in 4:2:0, which every player knows; sides that are odd get a last row or column twice."""
    height, width = film.size
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(film.fps).limit_denominator(1000))
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "12", "preset": "medium"}
        for picture in film.frames:
            pixels = np.pad(np.asarray(picture), ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def _write_gif(film: Film, path: Path) -> None:
    _animate(film, path, "GIF", optimize=False, disposal=1)


def _write_webp(film: Film, path: Path) -> None:
    _animate(film, path, "WEBP", quality=90, method=4)


def _animate(film: Film, path: Path, kind: str, **options: object) -> None:
    first, *others = film.frames
    duration = max(round(1000 / film.fps), 20)  # browsers play anything quicker slowly
    first.save(path, kind, save_all=True, append_images=others, duration=duration, loop=0, **options)


def film_sheet(film: Film, columns: int = SHEET_COLUMNS) -> Image.Image:
    """All frames on one sheet, and below each how it differs from the one before it, four times as strong.

    Grey means no difference; the first frame's is that from the last, which says how far the film has come.
    """
    arrays = [np.asarray(frame, np.int16) for frame in film.frames]
    columns = min(columns, len(arrays))
    cells: list[Image.Image] = []
    for start in range(0, len(arrays), columns):
        row = range(start, min(start + columns, len(arrays)))
        blank = [Image.new("RGB", film.frames[0].size, "white")] * (columns - len(row))
        cells += [*(film.frames[i] for i in row), *blank]
        cells += [*(_difference(arrays[i], arrays[i - 1]) for i in row), *blank]
    return make_grid(cells, columns)


def _difference(after: np.ndarray, before: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(128 + DIFFERENCE_GAIN * (after - before), 0, 255).astype(np.uint8))

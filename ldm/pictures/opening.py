"""The only place that opens picture files: known formats alone, a limit of pixels, damage in one sentence."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from ldm.util import UserError

log = logging.getLogger(__name__)

StrPath = str | os.PathLike[str]
# Pillow knows forty formats more; some start programs (Ghostscript for an EPS, whatever its name says).
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "PPM", "AVIF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".avif", ".jfif")
HEIF_SUFFIXES = (".heic", ".heif", ".hif")  # as telephones write them; read by a package that not everybody needs
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

LIMIT_NAME = "LDM_MAX_PIXELS"
MOST_PIXELS = 250_000_000  # beyond the 201 million of the largest telephone cameras
FREE_PIXELS = 1 << 26  # up to here a file may be as small as it likes
PIXELS_A_BYTE = 256  # beyond: a photograph has some 5, one colour as JPEG 64, a bomb as PNG over 340
MOST_TEXT = 1 << 26  # bytes of a text field or a colour profile, unpacked; Pillow's own limit is 1 MiB

PngImagePlugin.MAX_TEXT_CHUNK = MOST_TEXT
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # there is a limit of our own
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # damage is one sentence, or is read over


def read_image(path: StrPath) -> Image.Image:
    """A picture in the mode of its file, loaded and turned upright by its EXIF data.

    Raises:
        UserError: there is no such file, it is no picture in a known format, it is damaged, or it has too many pixels.
    """
    with _opened(Path(path)) as image:
        image.load()
        return _upright(image, Path(path))


def check_image(path: StrPath) -> None:
    """Look at the beginning of a picture file only.

    Raises:
        UserError: as :func:`read_image`, as far as the beginning tells.
    """
    with _opened(Path(path)):
        pass


def read_text_field(path: StrPath, name: str) -> str | None:
    """A text field of a picture; None where there is none of that name.

    Raises:
        UserError: as :func:`read_image`.
    """
    with _opened(Path(path)) as image:
        image.load()  # fields may lie behind the pixels
        value = image.info.get(name)
        return None if value is None else str(value)


@cache
def say_once(message: str) -> None:
    """Warn of a file's oddity the first time that it is met, however often the file is read."""
    log.warning("%s", message)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    if not path.is_file():
        raise UserError(f"there is no image file '{path}'")
    limit = most_pixels()
    Image.MAX_IMAGE_PIXELS = limit  # Pillow refuses twice as many before it has looked any further
    try:
        with path.open("rb") as file:
            formats = _formats(file.read(12), path)
        with Image.open(path, formats=formats) as image:
            _check_pixels(image.width * image.height, path, limit)
            yield image
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(_too_many(path, f"over {2 * limit:,}", limit)) from error
    except UnidentifiedImageError as error:
        raise UserError(f"cannot read the image '{path}': not a picture in a known format") from error
    except Exception as error:  # decoders of damaged files raise whatever they come across
        raise UserError(f"cannot read the image '{path}': {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """What a decoder or the system said, on one line of usual length."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    said = "".join(letter if letter.isprintable() else " " for letter in str(error))
    return " ".join(said.split())[:120] or f"it is damaged ({type(error).__name__})"


def _formats(head: bytes, path: Path) -> tuple[str, ...]:
    """The formats that a file may have, by its first bytes: HEIC needs its package.

    Raises:
        UserError: it is HEIC, and the package is not installed.
    """
    if head[4:8] != b"ftyp" or head[8:12] not in _HEIF_BRANDS:
        return FORMATS
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        if head[8:12] in (b"mif1", b"msf1"):  # AVIF may begin like that, too
            return FORMATS
        raise UserError(
            f"cannot read the image '{path}': HEIC needs the package 'pillow-heif' (pip install pillow-heif); "
            "or save it as JPEG"
        ) from error
    register_heif_opener()
    return (*FORMATS, "HEIF")


def most_pixels() -> int:
    """The largest number of pixels that a picture may have: LDM_MAX_PIXELS of the environment, or 250 million.

    Raises:
        UserError: the variable is no whole number above 0.
    """
    text = os.environ.get(LIMIT_NAME, "").strip()
    if not text:
        return MOST_PIXELS
    if not (text.isascii() and text.isdigit() and len(text) < 16 and int(text) > 0):
        raise UserError(f"{LIMIT_NAME} should be a whole number of pixels such as {MOST_PIXELS}, got '{text[:40]}'")
    return int(text)


def _check_pixels(pixels: int, path: Path, limit: int) -> None:
    if pixels > limit:
        raise UserError(_too_many(path, f"{pixels:,}", limit))
    size = path.stat().st_size
    if not os.environ.get(LIMIT_NAME, "").strip() and pixels > max(FREE_PIXELS, size * PIXELS_A_BYTE):
        raise UserError(
            f"the image '{path}' would unpack to {pixels:,} pixels from {size:,} bytes, which no photograph does; if "
            f"it is meant so, set {LIMIT_NAME}={pixels} in the environment, or scale it down"
        )


def _too_many(path: Path, pixels: str, limit: int) -> str:
    return (
        f"the image '{path}' has {pixels} pixels, and the limit is {limit:,}; scale it down, or set {LIMIT_NAME} in "
        "the environment to a larger number"
    )


def _upright(image: Image.Image, path: Path) -> Image.Image:
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception as error:  # EXIF data are what cameras and programs make of them
        say_once(f"the EXIF data of '{path}' cannot be read ({_reason(error)}); the picture is taken as it lies")
    return image

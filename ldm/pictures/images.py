"""Pictures between files, PIL and [-1, 1]: reading any format, sizes, parameters in PNG text, numbered files."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps
from PIL.PngImagePlugin import PngInfo

from ldm.pictures.opening import HEIF_SUFFIXES, SUFFIXES, StrPath, read_image, read_text_field
from ldm.pictures.profiles import to_srgb
from ldm.util import UserError, atomic_write

if TYPE_CHECKING:  # imported where it is needed: it takes seconds, and most of this file does without
    from torch import Tensor

log = logging.getLogger(__name__)

STRIP = 1024  # rows that are converted at a time
FONT_SIZE, LINE = 11, 14  # of a sheet's labels, in pixels
WIDE_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKkr-Regular.otf",
    "AppleSDGothicNeo.ttc",
    "msyh.ttc",
    "wqy-microhei.ttc",
)


def load_image(path: StrPath, profiled: bool = True) -> Image.Image:
    """Read a picture as upright 8-bit sRGB: EXIF rotation and colour profile applied, 16 bits scaled, over white.

    EXIF data or a profile that cannot be used are said once, and left out.

    Args:
        profiled: apply the colour profile; False takes the numbers as they are.

    Raises:
        UserError: as ``ldm.pictures.opening.read_image``.
    """
    image = read_image(path)
    if not profiled:
        image.info.pop("icc_profile", None)
    return to_rgb(image, str(path))


def to_rgb(image: Image.Image, name: str = "the picture") -> Image.Image:
    """8-bit sRGB of a picture in any mode, by its profile if it has one; what is transparent becomes white."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8_bit(image)
    if image.height <= STRIP or image.mode == "RGB":
        return _over_white(image, name)
    whole = Image.new("RGB", image.size)
    for top in range(0, image.height, STRIP):  # whole, a layer would be in memory five times
        strip = image.crop((0, top, image.width, min(top + STRIP, image.height)))
        whole.paste(_over_white(strip, name), (0, top))
    return whole


def _over_white(image: Image.Image, name: str) -> Image.Image:
    profile = image.info.get("icc_profile")
    if not is_layer(image):
        kept = image if image.mode in ("RGB", "L", "CMYK") else image.convert("RGB")
        return to_srgb(kept, profile, name)
    layer = image.convert("RGBA")
    colours = image.convert("L") if image.mode in ("LA", "La") else layer.convert("RGB")
    seen = to_srgb(colours, profile, name).convert("RGBA")
    seen.putalpha(layer.getchannel("A"))
    return Image.alpha_composite(Image.new("RGBA", layer.size, (255, 255, 255, 255)), seen).convert("RGB")


def is_layer(image: Image.Image) -> bool:
    """Whether a picture has an alpha channel, or a colour that stands for transparency."""
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Grey numbers by the first range that holds them, else by the largest.

    That of 16 bits for integers, but 255 first for the 32-bit ones of a TIFF file; 1 or 255 for floats.
    """
    if image.mode == "F":
        ranges: tuple[float, ...] = (1.0, 255.0)
    else:
        ranges = (255.0, 65535.0) if image.mode == "I" and image.format == "TIFF" else (65535.0,)
    raw = np.asarray(image)
    strips = [raw[top : top + STRIP] for top in range(0, len(raw), STRIP)]  # whole, they would take 8 bytes a pixel
    largest = max((float(np.nan_to_num(strip).max(initial=0)) for strip in strips), default=0.0)
    full = next((limit for limit in ranges if largest <= limit), largest)
    grey = np.empty(raw.shape, np.uint8)
    for top, strip in zip(range(0, len(raw), STRIP), strips, strict=True):
        values = np.nan_to_num(strip.astype(np.float64)) / full * 255.0
        grey[top : top + STRIP] = np.clip(np.round(values), 0, 255)
    made = Image.fromarray(grey)
    made.info = image.info
    return made


def image_to_array(image: Image.Image) -> NDArray[np.float32]:
    """[H, W, 3] float32 in [-1, 1]."""
    return np.asarray(image.convert("RGB"), np.float32) / np.float32(127.5) - np.float32(1)


def image_to_tensor(image: Image.Image) -> Tensor:
    """[3, H, W] float32 in [-1, 1]."""
    import torch

    return torch.from_numpy(image_to_array(image)).permute(2, 0, 1).contiguous()


def tensor_to_image(tensor: Tensor) -> Image.Image:
    """The picture of a [3, H, W] tensor in [-1, 1]; values beyond are clipped, NaN becomes grey.

    Raises:
        ValueError: another shape.
    """
    import torch

    if tensor.ndim != 3 or tensor.shape[0] != 3:
        raise ValueError(f"a picture is [3, H, W], got {list(tensor.shape)}")
    values = torch.nan_to_num(tensor.detach().float().cpu(), nan=0.0)
    return Image.fromarray(as_bytes(values).permute(1, 2, 0).contiguous().numpy())


def as_bytes(pictures: Tensor) -> Tensor:
    """Pictures in [-1, 1], of any shape, as a file has them; values beyond are clipped."""
    import torch

    return ((pictures.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def list_images(folder: StrPath, recursive: bool = False) -> list[Path]:
    """The picture files of a folder (by their suffix), in natural order: 2.png before 10.png.

    Raises:
        UserError: the folder is missing or holds no pictures.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"there is no folder '{folder}'")
    entries = folder.rglob("*") if recursive else folder.iterdir()
    found = [p for p in entries if p.suffix.lower() in (*SUFFIXES, *HEIF_SUFFIXES) and not p.name.startswith(".")]
    if not found:
        raise UserError(f"the folder '{folder}' holds no pictures; known formats are {', '.join(SUFFIXES)}")
    return sorted(found, key=_natural)


def _natural(path: Path) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", path.as_posix().lower())
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


def load_folder(folder: StrPath) -> list[tuple[Path, Image.Image]]:
    """Read all pictures of a folder; unreadable ones are named, counted and left out.

    Raises:
        UserError: no folder, no pictures, or none that can be read.
    """
    paths = list_images(folder)
    images = list(readable_images(paths))
    if not images:
        raise UserError(f"none of the {len(paths)} pictures in '{folder}' can be read")
    return images


def readable_images(paths: Sequence[Path]) -> Iterator[tuple[Path, Image.Image]]:
    """The pictures that can be read, one at a time; the others are named and, at the end, counted in warnings."""
    skipped = 0
    for path in paths:
        try:
            image = load_image(path)
        except UserError as error:
            skipped += 1
            log.warning("skipped: %s", error)
            continue
        yield path, image
    if skipped:
        log.warning("skipped %d of %d pictures that cannot be read", skipped, len(paths))


def check_size(width: int, height: int, factor: int) -> None:
    """Refuse a size that the model's downsampling does not divide.

    Raises:
        UserError: names the nearest sizes that would do.
    """
    for name, value in (("width (W)", width), ("height (H)", height)):
        if value < factor:
            raise UserError(f"{name} must be at least {factor}, and a multiple of it; got {value}")
        if value % factor:
            lower = value // factor * factor
            raise UserError(f"{name} {value} is not a multiple of {factor}; {lower} or {lower + factor} would be right")


def fit_size(width: int, height: int, factor: int, longest: int | None = None) -> tuple[int, int]:
    """The nearest size (width, height) in multiples of the factor, aspect kept, at most `longest` on a side."""
    scale = min(1.0, longest / max(width, height)) if longest else 1.0
    ceiling = math.inf if longest is None else max(longest // factor, 1)
    blocks = [min(max(1, round(side * scale / factor)), ceiling) for side in (width, height)]
    return int(blocks[0] * factor), int(blocks[1] * factor)


def fit_image(image: Image.Image, factor: int, longest: int | None = None) -> Image.Image:
    """Resize to the nearest size that the factor divides, aspect kept within half a factor."""
    return image.resize(fit_size(*image.size, factor, longest), Image.Resampling.LANCZOS)


def centre_crop(image: Image.Image, width: int, height: int) -> Image.Image:
    """Resize so that the size is covered, and cut what stands over on both sides alike."""
    return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)


def save_image(
    image: Image.Image, path: StrPath, parameters: Mapping[str, Any] | str | None = None, new: bool = False
) -> None:
    """Write a picture in the format of its suffix; `parameters` goes into a PNG's text field of that name.

    A mapping is written as JSON, a string as it is.

    Raises:
        UserError: unknown suffix, full disk (an older file survives).
        TakenError: with `new`, there is a file (which survives).
    """
    path = Path(path)
    Image.preinit()  # the common formats; reading in all that Pillow has takes longer than writing the picture
    formats = Image.EXTENSION if path.suffix.lower() in Image.EXTENSION else Image.registered_extensions()
    if path.suffix.lower() not in formats:
        raise UserError(f"cannot write '{path}': '{path.suffix}' is no picture format; .png would be right")
    options: dict[str, Any] = {}
    if parameters is not None and path.suffix.lower() == ".png":
        text = parameters if isinstance(parameters, str) else json.dumps(dict(parameters), ensure_ascii=False)
        info = PngInfo()
        info.add_itxt("parameters", text)
        options["pnginfo"] = info
    with atomic_write(path, new) as temporary:
        image.save(temporary, format=formats[path.suffix.lower()], **options)


def read_parameters(path: StrPath) -> dict[str, Any] | str | None:
    """What `save_image` wrote into the 'parameters' field; None where there is none.

    Raises:
        UserError: the file is missing or is no picture.
    """
    text = read_text_field(path, "parameters")
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict) else text


def make_grid(
    images: Sequence[Image.Image], columns: int, labels: Sequence[str] | None = None, gap: int = 2
) -> Image.Image:
    """A sheet of pictures, row by row, each with its label (wrapped to the picture's width) underneath.

    Pictures of different sizes are centred in cells of the largest.

    Raises:
        UserError: no pictures, or not one label each.
    """
    if not images or columns < 1:
        raise UserError("a sheet needs at least one picture and one column")
    if labels is not None and len(labels) != len(images):
        raise UserError(f"a sheet of {len(images)} pictures needs as many labels, got {len(labels)}")
    columns = min(columns, len(images))
    width, height = max(i.width for i in images), max(i.height for i in images)
    wrapped = [_wrap(label, width) for label in labels] if labels else [""] * len(images)
    strip = max(text.count("\n") + 1 if text else 0 for text in wrapped) * LINE
    rows = math.ceil(len(images) / columns)
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + strip + gap) + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (image, text) in enumerate(zip(images, wrapped, strict=True)):
        left = gap + number % columns * (width + gap)
        top = gap + number // columns * (height + strip + gap)
        sheet.paste(image.convert("RGB"), (left + (width - image.width) // 2, top + (height - image.height) // 2))
        if text:
            draw.multiline_text((left, top + height), text, fill="black", font=label_font(), spacing=2)
    return sheet


def _wrap(text: str, width: int) -> str:
    """Break a label between words (anywhere in a word that is too long) so that it fits the width in pixels."""
    font, lines = label_font(), [""]
    for word in re.findall(r"\S+\s*", text):
        if lines[-1] and font.getlength((lines[-1] + word).rstrip()) > width:
            lines.append("")
        for letter in word:
            if lines[-1] and font.getlength((lines[-1] + letter).rstrip()) > width:
                lines.append("")
            lines[-1] += letter
    return "\n".join(line.rstrip() for line in lines)


@cache
def label_font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font of the system that has Korean and Chinese letters, where there is one; Pillow's own otherwise."""
    for name in WIDE_FONTS:
        try:
            return ImageFont.truetype(name, FONT_SIZE)
        except OSError:
            continue
    return ImageFont.load_default(FONT_SIZE)

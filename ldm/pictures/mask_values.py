"""What a mask file says: transparency, brightness, or labels.

Where transparency varies it is the mask, whatever was painted. Labels are whole numbers up to 31, colours of a palette,
or a few plain colours on black; one label beside 0 (or black) is a mask, more are several, and a person has to say
which.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from ldm.arrays import read_array
from ldm.pictures.images import is_layer, to_rgb
from ldm.pictures.opening import read_image
from ldm.util import UserError

Values = NDArray[np.float32]
Numbers = NDArray[np.generic]

LARGEST_LABEL = 31  # a mask whose every value is below 32 of 255 would not be seen to do anything
MOST_COLOURS = 32  # plain colours that may be labels; a photograph has thousands
UNKNOWN = 255  # the label for "nothing known" beside small ones, as data sets for segmentation have it
LOSSLESS = ("PNG", "TIFF", "BMP", "GIF", "PPM")
IN, OUT = 0.75, 0.25  # brightness of strokes: above belongs, below does not, between is open


def mask_values(path: Path, label: int | None = None) -> Values:
    """A mask file as [H, W] float32 in [0, 1].

    Args:
        path: ``.npy`` or a picture.
        label: of a label image, the one that is the mask: a number, or 0xRRGGBB where colours are the labels.

    Raises:
        UserError: the file cannot be read, holds no single mask, values that are not finite or beyond their range,
            or more labels than one beside 0, of which none is chosen.
    """
    if path.suffix.lower() == ".npy":
        return _from_array(path, label)
    return picture_mask(read_image(path), path, label)


def picture_mask(image: Image.Image, name: Path, label: int | None = None) -> Values:
    """What a picture says as a mask, [H, W] float32 in [0, 1]; ``name`` is what errors call it.

    Raises:
        UserError: as ``mask_values``.
    """
    alpha = transparency(image) if label is None else None
    return _from_colours(image, name, label) if alpha is None else alpha


def transparency(image: Image.Image) -> Values | None:
    """The alpha of a picture, [H, W] float32 in [0, 1]; None where it is nowhere transparent."""
    if not is_layer(image):
        return None
    alpha = image.convert("RGBA").getchannel("A")
    low, high = alpha.getextrema()
    return np.asarray(alpha, np.float32) / np.float32(255) if low != high or high == 0 else None


def _from_array(path: Path, label: int | None) -> Values:
    values = read_array(path, "mask")
    flat = values.squeeze()
    if flat.ndim != 2:
        raise UserError(f"the mask '{path}' has the shape {list(values.shape)}; [height, width] would be right")
    if label is not None or (flat.dtype.kind in "iu" and _are_labels(flat)):
        return _one_label(flat, path, label, str)
    top = 255.0 if flat.dtype.kind in "iu" else 1.0
    return _scaled(flat, top, path, "0 to 1, or whole numbers from 0 to 255, would be right")


def _from_colours(image: Image.Image, path: Path, label: int | None) -> Values:
    """By grey numbers where all colours are grey, else by a palette's indices or by few plain colours."""
    if image.mode == "F":
        numbers = np.asarray(image)
        return _scaled(numbers, 1.0 if numbers.max(initial=0) <= 1 else 255.0, path, "0 to 1 or to 255 would be right")
    if image.mode.startswith("I"):
        numbers = np.asarray(image).astype(np.int64)
    elif _is_grey(image):
        numbers = np.asarray(image.convert("L"))
    elif image.mode == "P":
        return _one_label(np.asarray(image), path, label, str)
    else:
        plain = image.convert("RGB").getcolors(MOST_COLOURS)  # None: more of them
        if label is not None or (plain and (0, 0, 0) in [colour for _, colour in plain]):
            codes = np.asarray(image.convert("RGB")).astype(np.int64) @ (1 << 16, 1 << 8, 1)
            return _one_label(codes, path, label, "0x{:06x}".format)
        return np.asarray(to_rgb(image).convert("L"), np.float32) / np.float32(255)
    if label is not None or _are_labels(numbers, image.format in LOSSLESS):
        return _one_label(numbers, path, label, str)
    top = 255.0 if numbers.max(initial=0) <= 255 else 65535.0
    return _scaled(numbers, top, path, f"0 to {top:g} would be right")


def _is_grey(image: Image.Image) -> bool:
    red, green, blue = image.convert("RGB").split()
    return all(ImageChops.difference(red, other).getbbox() is None for other in (green, blue))


def _are_labels(numbers: Numbers, exact: bool = True) -> bool:
    """Whether whole numbers are small, or small but for the one that says that nothing is known."""
    found: NDArray[np.int64] = np.unique(numbers).astype(np.int64)
    if found.min(initial=0) < 0 or found.max(initial=0) > UNKNOWN:
        return False
    small = found[(found > 0) & (found < UNKNOWN)]
    return bool(found.max(initial=0) <= LARGEST_LABEL or (exact and 0 < small.max(initial=0) <= LARGEST_LABEL))


def _one_label(numbers: Numbers, path: Path, label: int | None, name: Callable[[int], str]) -> Values:
    """1 where a label is, which is the chosen one or the only one beside 0."""
    found = [int(value) for value in np.unique(numbers)]
    others = [value for value in found if value]
    if label is None:
        if len(others) <= 1:
            return (numbers != 0).astype(np.float32)
        raise UserError(
            f"the mask '{path}' is a label image with the labels {_listed(found, name)}, and one mask is one label: "
            f"'python -m scripts.make_mask {path.name} --label {name(others[0])} --out MASK.npy' writes that of one"
        )
    if label not in found:
        raise UserError(f"the mask '{path}' has no label {name(label)}; it has {_listed(found, name)}")
    return (numbers == label).astype(np.float32)


def _listed(found: list[int], name: Callable[[int], str], most: int = 16) -> str:
    rest = len(found) - most
    return ", ".join(name(value) for value in found[:most]) + (f" and {rest} more" if rest > 0 else "")


def _scaled(values: Numbers, top: float, path: Path, right: str) -> Values:
    """Numbers from 0 to ``top`` as 0 to 1."""
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise UserError(f"the mask '{path}' holds values that are not finite (NaN or infinity)")
    if numbers.min(initial=0) < 0 or numbers.max(initial=0) > top:
        raise UserError(f"the mask '{path}' holds values from {numbers.min():g} to {numbers.max():g}; {right}")
    return (numbers / top).astype(np.float32)


def read_strokes(path: Path) -> NDArray[np.float64]:
    """[H, W]: 1 where a picture is bright, 0 where it is dark, NaN in between and where it is transparent.

    Raises:
        UserError: it cannot be read.
    """
    image = read_image(path)
    open_ = np.zeros((image.height, image.width), bool)
    if is_layer(image):
        layer = image.convert("RGBA")
        open_ = np.asarray(layer.getchannel("A")) < 128
        image = layer.convert("RGB")
    brightness = np.asarray(to_rgb(image).convert("L")) / 255.0
    strokes = np.where(brightness > IN, 1.0, np.where(brightness < OUT, 0.0, np.nan))
    strokes[open_] = np.nan
    return strokes

"""Masks: which part of a content takes a style. Files, names, sizes, soft edges.

A mask is a [H, W] float32 tensor in [0, 1]; 1 takes the style. Files are ``.npy`` (booleans, 0..1, 0..255 or labels)
or pictures (their transparency where it varies, else their brightness or labels), named after the content they lie
beside: ``<content>_mask``, ``<content>_mask0``, ``<content>_mask1`` and on, the first for the first style.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ldm.pictures.mask_values import mask_values
from ldm.pictures.opening import SUFFIXES, StrPath
from ldm.util import UserError, atomic_write

MASK_SUFFIXES = (".npy", *SUFFIXES)
SOFTEST = 10_000  # pixels of a feather
_NUMBERED = re.compile(r"_mask(\d*)")


def short_name(path: StrPath) -> str:
    """A picture's name up to the first full stop, which is what results and masks are named after."""
    return Path(path).name.split(".")[0]


def mask_path(content: StrPath, number: int | None = None, suffix: str = ".npy") -> Path:
    """Where a content's mask lies: ``<content>_mask.npy``, or ``<content>_mask<number>.npy``."""
    content = Path(content)
    return content.with_name(f"{_names(content)[-1]}_mask{'' if number is None else number}{suffix}")


def find_masks(content: StrPath) -> list[Path]:
    """The mask files beside a content, ``_mask`` first, then by number; ``.npy`` before a picture of that name."""
    content = Path(content)
    beside = sorted(content.parent.iterdir()) if content.parent.is_dir() else []
    for name in _names(content):
        found: dict[int, Path] = {}
        for suffix in MASK_SUFFIXES:
            for path in beside:
                number = _mask_number(path, name)
                if number is not None and path.suffix.lower() == suffix:
                    found.setdefault(number, path)
        if found:
            return [found[number] for number in sorted(found)]
    return []


def _names(content: Path) -> list[str]:
    """What the masks of a content may be named after: what is before its last full stop, or before its first.

    ``photo_mask.npy`` belongs to ``photo.png``, where there is one, and not to ``photo.v2.png`` beside it.
    """
    short = short_name(content)
    if content.stem != short and any(content.with_name(f"{short}{suffix}").is_file() for suffix in SUFFIXES):
        return [content.stem]
    return [content.stem, short]


def is_mask_of_another(path: Path, others: Sequence[Path]) -> bool:
    """Whether a picture is a mask of one of the others, by its name."""
    names = {name for other in others if other != path for name in (other.stem, short_name(other))}
    return any(_mask_number(path, name) is not None for name in names)


def _mask_number(path: Path, content: str) -> int | None:
    """The number in a mask file's name (-1 for none), or None for a file that is no mask of this content."""
    match = _NUMBERED.fullmatch(path.stem[len(content) :]) if path.stem.startswith(content) else None
    return None if match is None else int(match[1] or -1)


def read_mask(path: StrPath, sizes: Sequence[tuple[int, int]] = (), label: int | None = None) -> Tensor:
    """A mask file as [H, W] float32 in [0, 1].

    Args:
        path: ``.npy`` or a picture.
        sizes: the sizes (height, width) that would fit; any when empty.
        label: of a label image, the one that is the mask; see ``ldm.pictures.mask_values``.

    Raises:
        UserError: the file is missing or unreadable, holds no single mask, values that are not finite or beyond their
            range, nothing but zeros, or has none of the sizes.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no mask file '{path}'")
    mask = torch.from_numpy(mask_values(path, label))
    if not bool(mask.any()):
        raise UserError(f"the mask '{path}' is empty: no value is above 0, so that it marks no part of a picture")
    size = (mask.shape[0], mask.shape[1])
    if sizes and size not in sizes:
        right = " or ".join(dict.fromkeys(f"{width}x{height}" for height, width in sizes))
        raise UserError(f"the mask '{path}' has {size[1]}x{size[0]} pixels, its content needs {right}")
    return mask


def write_mask(mask: Tensor, path: StrPath) -> None:
    """Save a [H, W] mask as ``.npy`` (float32) or as a grey picture.

    Raises:
        UserError: an unknown suffix, a full disk.
    """
    path = Path(path)
    if path.suffix.lower() not in MASK_SUFFIXES:
        raise UserError(f"cannot write the mask '{path}': .npy or .png would be right")
    values = mask.detach().float().clamp(0, 1).cpu().numpy()
    with atomic_write(path) as temporary:
        if path.suffix.lower() == ".npy":
            with temporary.open("wb") as file:
                np.save(file, values)
        else:
            Image.fromarray(np.round(values * 255).astype(np.uint8)).save(temporary)


def fit_mask(mask: Tensor, size: tuple[int, int], centre_crop: bool = False, most: bool = False) -> Tensor:
    """A mask [H, W] at another size (height, width): the cut and scaling that its content went through.

    A pixel that several come to has their mean, or with ``most`` the largest of them.

    Raises:
        UserError: nothing of it is left: all that it marks lies in the part that is cut off.
    """
    height, width = size
    if centre_crop:
        mask = _cut(mask, height / width)
    scaled = F.adaptive_max_pool2d if most else F.adaptive_avg_pool2d
    fitted = scaled(mask[None], size)[0] if tuple(mask.shape) != size else mask
    if not bool(fitted.any()):
        raise UserError("all that the mask marks lies outside the part of the picture that is kept")
    return fitted


def _cut(mask: Tensor, aspect: float) -> Tensor:
    """The largest part around the middle with the aspect height / width."""
    height, width = mask.shape
    kept_h, kept_w = min(height, round(width * aspect)), min(width, round(height / aspect))
    top, left = (height - kept_h) // 2, (width - kept_w) // 2
    return mask[top : top + kept_h, left : left + kept_w]


def feather(mask: Tensor, radius: float) -> Tensor:
    """A soft edge for a [H, W] mask: a Gaussian with the deviation ``radius``, in pixels.

    Raises:
        UserError: a radius below 0 or above ``SOFTEST``, or none.
    """
    from skimage.filters import gaussian

    if not 0 <= radius <= SOFTEST:  # NaN is not, either
        raise UserError(f"a feather of {radius:g} pixels cannot be; 0 is a hard edge, {SOFTEST} the softest")
    if radius == 0:
        return mask
    return torch.from_numpy(gaussian(mask.float().numpy(), sigma=radius, mode="nearest")).float().clamp(0, 1)

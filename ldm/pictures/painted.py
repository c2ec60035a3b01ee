"""What somebody has painted over a picture: layers with paint to masks, masks to layers, and a view of both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ldm.pictures.masks import feather
from ldm.pictures.paints import COLOURS
from ldm.util import UserError

OPACITY = 0.5  # of the paint, which lets the picture through and counts as a whole mask
DIMMED = 0.45  # brightness outside of all masks in the preview
MOST_LAYERS = 16
RIM = 0.02  # of the longer side: where the thing that strokes are on does not reach


def layers_to_masks(layers: Sequence[NDArray[np.uint8]], size: tuple[int, int], radius: float = 0.0) -> list[Tensor]:
    """Masks [H, W] of the layers on which something is painted, whatever its colour; paint of OPACITY is a whole mask.

    Args:
        layers: [h, w, 4] RGBA, of the picture's size or scaled from it.
        size: (height, width) of the picture.
        radius: of the soft edge, in pixels.

    Raises:
        UserError: nothing is painted, there are too many layers, or a layer is no RGBA picture.
    """
    if len(layers) > MOST_LAYERS:
        raise UserError(f"{len(layers)} layers are too many; up to {MOST_LAYERS} would do")
    masks = []
    for number, layer in enumerate(layers, start=1):
        if layer.ndim != 3 or layer.shape[2] != 4:
            raise UserError(f"layer {number} has the shape {list(layer.shape)}; height, width and 4 would be right")
        alpha = Image.fromarray(np.ascontiguousarray(layer[..., 3]))
        if alpha.size != size[::-1]:
            alpha = alpha.resize(size[::-1], Image.Resampling.BILINEAR)
        painted = torch.from_numpy(np.asarray(alpha, np.float32) / int(255 * OPACITY)).clamp(max=1)
        if bool(painted.any()):
            masks.append(feather(painted, radius))
    if not masks:
        raise UserError("nothing is painted yet")
    return masks


def masks_to_layers(masks: Sequence[Tensor], size: tuple[int, int] | None = None) -> list[NDArray[np.uint8]]:
    """RGBA layers to go on painting, at (height, width) if that is given: each mask in a colour of its own."""
    layers = []
    for mask, colour in zip(masks, colours(len(masks)), strict=True):
        alpha = Image.fromarray((mask * int(255 * OPACITY)).round().to(torch.uint8).numpy())
        alpha = alpha if size is None else alpha.resize(size[::-1], Image.Resampling.BILINEAR)
        layers.append(np.dstack([np.full((alpha.height, alpha.width, 3), colour, np.uint8), np.asarray(alpha)]))
    return layers


def preview(image: Image.Image, masks: Sequence[Tensor], dimmed: float = DIMMED) -> Image.Image:
    """The picture with each mask tinted in its colour, and of a share of its brightness where no mask is."""
    picture = np.asarray(image, np.float32)
    covered = torch.stack(list(masks)).amax(dim=0).numpy()[..., None]
    seen = picture * (dimmed + (1 - dimmed) * covered)
    for mask, colour in zip(masks, colours(len(masks)), strict=True):
        share = mask.numpy()[..., None] * (1 - OPACITY) * 0.6
        seen = seen * (1 - share) + np.asarray(colour, np.float32) * share
    return Image.fromarray(seen.round().clip(0, 255).astype(np.uint8))


def colours(count: int) -> list[list[int]]:
    """RGB of the first layers, from the start again where there are more of them."""
    return [[int(COLOURS[n % len(COLOURS)][i : i + 2], 16) for i in (1, 3, 5)] for n in range(count)]


def masks_of(layers: Sequence[Image.Image], size: tuple[int, int]) -> list[Tensor]:
    """As ``layers_to_masks``, of pictures with alpha; without any paint there is no mask.

    Raises:
        UserError: there are too many layers.
    """
    painted = [np.asarray(layer.convert("RGBA")) for layer in layers]
    painted = [layer for layer in painted if layer[..., 3].any()]
    return layers_to_masks(painted, size) if painted else []


def layers_of(masks: Sequence[Tensor]) -> list[Image.Image]:
    """As ``masks_to_layers``, as pictures with alpha."""
    return [Image.fromarray(layer, "RGBA") for layer in masks_to_layers(masks)]


def proposed(picture: Image.Image, paint: Tensor) -> Tensor:
    """The mask [H, W] of what a few strokes of paint [H, W] are on; the picture's rim, unpainted, does not belong.

    Raises:
        UserError: nothing was found that differs from what is around it.
    """
    from ldm.pictures.mask_proposals import Marks, propose  # brings scikit-image, which takes a second

    strokes = np.full((picture.height, picture.width), np.nan)
    rim = max(1, round(RIM * max(picture.size)))
    strokes[:rim] = strokes[-rim:] = strokes[:, :rim] = strokes[:, -rim:] = 0
    strokes[(paint >= 0.5).numpy()] = 1
    return propose(picture, Marks(strokes=strokes))

"""What lies outside of all masks stays the content: latents on the way, and pixels at the end.

Masks are [styles, H, W], or [B, styles, H, W], in [0, 1].
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ldm.control.shares import check_masks, normalised, resized
from ldm.models.diffusion.loop import Before, Level
from ldm.pictures.images import image_to_tensor, tensor_to_image
from ldm.workflows.inversion.inverted import Inversion
from ldm.workflows.inversion.ways import Way

GROWTH = 2  # latent cells that a style goes on beyond its mask, where nobody sees it: the decoder looks that far


def grown(masks: Tensor, pixels: int) -> Tensor:
    """The masks [B or 1, styles, H, W], each going on for so many pixels where none lies.

    A style then has its full share up to the edge of its mask; what it does beyond is covered by the content.
    """
    masks = check_masks(masks, masks.shape[-3])
    _, coverage = normalised(masks)
    wider = F.max_pool2d(masks, 2 * pixels + 1, 1, pixels)
    return (masks + (1 - coverage)[:, None] * wider).clamp(max=1)


def open_cells(masks: Tensor, latent: Tensor) -> Tensor:
    """1 in the cells [B or 1, 1, h, w] of a latent that any mask touches, 0 in those that stay the content's."""
    grid = (latent.shape[-2], latent.shape[-1])
    return (resized(check_masks(masks, masks.shape[-3]), grid).sum(dim=1, keepdim=True) > 0).float()


def held(x: Tensor, content: Tensor, cells: Tensor) -> Tensor:
    """A latent [B, C, h, w] with another in the cells that are not open."""
    return torch.where(cells.to(x.device) > 0, x, content.to(x))


def hold(content: Inversion, cells: Tensor, way: Way | None = None) -> Before:
    """Before each step, cells that are not open get what the content's own inversion had at that level."""
    way = way or Way()

    def change(x: Tensor, level: Level) -> Tensor:
        return held(x, way.state(content, level), cells)

    return change


def opacity(masks: Tensor, feather: float) -> Tensor:
    """How much of a result is seen at each pixel [H, W] of its masks [styles, H, W].

    From where masks say a half it rises to 1 over ``feather`` pixels inwards and falls to 0 over as many outwards: a
    mask that is a pixel or two larger than its object would show as a rim otherwise. Outwards it is never less than
    the masks themselves, which may be softer.
    """
    _, coverage = normalised(check_masks(masks, len(masks)))
    core = (coverage >= 0.5).float()[:, None]
    seen, reach = core, math.ceil(feather)
    for radius in (math.ceil(reach / 2), reach // 2) if reach else ():
        seen = F.avg_pool2d(seen, 2 * radius + 1, 1, radius, count_include_pad=False)
    return torch.where(core > 0, seen, torch.maximum(seen, coverage))[0, 0]


def joined(result: Image.Image, content: Image.Image, masks: Tensor, feather: float) -> Image.Image:
    """A result where its masks are, passing into the content over ``feather`` pixels on either side of their edge.

    Pixels beyond are those of the content. Masks [styles, H, W] have the size of both pictures.
    """
    share = opacity(masks, feather)
    made, kept = image_to_tensor(result), image_to_tensor(content)
    return tensor_to_image(share * made + (1 - share) * kept)

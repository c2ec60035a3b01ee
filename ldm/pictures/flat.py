"""What is smooth in one picture made smooth in another that has the same outlines."""

from __future__ import annotations

import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ldm.pictures.images import image_to_tensor, tensor_to_image

WINDOW = 31  # pixels, about four cells of a latent: wider than what a decoder leaves at their borders
EDGES = 0.00075  # variance of a content in [0, 1] from which on its edges are kept
AROUND = 5  # pixels in each direction over which it is seen whether a content is flat
FLAT, GRAINED = 0.01, 0.05  # deviation there, of values in [0, 1]: flat up to the one, not at all from the other on


def keep_flat(result: Image.Image, content: Image.Image, share: float = 1.0) -> Image.Image:
    """A result that is smooth where its content is, in its own colours; elsewhere it stays as it is.

    The result is filtered with the content as the guide (He, Sun and Tang 2013, "Guided Image Filtering"), so that no
    colour runs over an outline of the content, and mixed in where the content is flat. The content is scaled to the
    result's size, where they differ.

    Args:
        share: how far flat places go to what is smooth, 0 to 1.
    """
    if share == 0:
        return result
    from kornia.filters import guided_blur  # half a second that other restyling need not wait for

    guide = content.convert("RGB").resize(result.size, Image.Resampling.LANCZOS)
    made, seen = (image_to_tensor(image.convert("RGB"))[None] / 2 + 0.5 for image in (result, guide))
    window = min(WINDOW, 2 * ((min(result.size) - 1) // 2) + 1)
    smooth = guided_blur(seen, made, window, EDGES)
    mixed = made + share * flatness(seen) * (smooth - made)
    return tensor_to_image(mixed[0].clamp(0, 1) * 2 - 1)


def flatness(values: Tensor, flat: float = FLAT, grained: float = GRAINED, around: int = AROUND) -> Tensor:
    """Where pictures or latents [B, C, H, W] are flat, [B, 1, H, W]: 1 there, 0 where there is grain or an edge.

    Args:
        flat, grained: the local deviation, over all channels, up to which it is 1, and from which on it is 0.
        around: pixels or cells in each direction over which that is taken, an odd number.
    """

    def mean_around(one: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(one, (around // 2,) * 4, mode="replicate"), around, 1)

    variance = (mean_around(values.square()) - mean_around(values).square()).clamp(min=0)
    deviation = variance.mean(dim=1, keepdim=True).sqrt()
    return mean_around(1 - ((deviation - flat) / (grained - flat)).clamp(0, 1))

"""What a restyling must beat: simple ways to a result, on the same contents and styles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from kornia.color import lab_to_rgb, rgb_to_lab
from PIL import Image
from skimage.exposure import match_histograms

from ldm.pictures.images import centre_crop, fit_image, image_to_tensor, tensor_to_image
from ldm.workflows.inversion.cache import clean_latent
from ldm.workflows.restyle.start import adain

GIVEN = "results"


@dataclass(frozen=True)
class Pictures:
    """A result with its content and style; the content has the result's size.

    Attributes:
        style: as it is in its file.
    """

    result: Image.Image
    content: Image.Image
    style: Image.Image


Way = Callable[[Pictures], Image.Image]


def fitted(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A picture at another's (width, height): scaled to cover it, the rest cut off; untouched where it fits."""
    return image if image.size == size else centre_crop(image, *size)


def reinhard(pictures: Pictures) -> Image.Image:
    """The content with the style's mean and deviation of each channel of CIELAB (Reinhard et al. 2001)."""
    content, style = (
        rgb_to_lab((image_to_tensor(image)[None] + 1) / 2) for image in (pictures.content, pictures.style)
    )
    return tensor_to_image(2 * lab_to_rgb(adain(content, style))[0] - 1)


def histograms(pictures: Pictures) -> Image.Image:
    """The content with the style's histogram of each channel."""
    content, style = (np.asarray(image.convert("RGB")) for image in (pictures.content, pictures.style))
    matched = match_histograms(content, style, channel_axis=-1)
    return Image.fromarray(np.clip(np.round(matched), 0, 255).astype(np.uint8))


@torch.no_grad()
def latents(model: Any, pictures: Pictures) -> Image.Image:
    """The content's latent with the mean and deviation of each channel of the style's, decoded (AdaIN)."""
    factor = int(model.first_stage_model.factor)
    longest = max(pictures.content.size)
    content, style = (
        clean_latent(model, image_to_tensor(fit_image(image, factor, longest))[None])
        for image in (pictures.content, pictures.style)
    )
    made = tensor_to_image(model.decode_first_stage(adain(content, style))[0])
    return made.resize(pictures.content.size, Image.Resampling.LANCZOS)


def ways(model: Any = None) -> dict[str, Way]:
    """The results that were given and their baselines, by name; that of latents with a model only."""
    found: dict[str, Way] = {
        GIVEN: lambda pictures: pictures.result,
        "content": lambda pictures: pictures.content,
        "style": lambda pictures: pictures.style,
        "reinhard": reinhard,
        "histogram": histograms,
    }
    if model is not None:
        found["latents"] = lambda pictures: latents(model, pictures)
    return found


BASELINES = (*list(ways())[1:], "latents")

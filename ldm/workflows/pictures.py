"""Latents to pictures."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from ldm.finite import check_finite
from ldm.pictures.images import tensor_to_image
from ldm.workflows.studio import Studio


@torch.no_grad()
def pictures_of(studio: Studio, latents: Tensor) -> list[Image.Image]:
    """The pictures that scaled latents [B, C, h, w] decode to.

    Raises:
        UserError: a value that is not finite came out, of the network or of the decoder.
    """
    check_finite(studio.model, latents)
    with studio.mixed():
        images = studio.model.decode_first_stage(latents)
    check_finite(studio.model, images)
    return [tensor_to_image(image) for image in images]

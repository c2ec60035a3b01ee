"""Latents to pictures."""

from __future__ import annotations

import logging
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ldm.finite import check_finite
from ldm.models.tiles import in_tiles
from ldm.modules.retoucher import Retoucher
from ldm.pictures.images import tensor_to_image
from ldm.workflows.studio import Studio

log = logging.getLogger(__name__)


@torch.no_grad()
def pictures_of(studio: Studio, latents: Tensor, retoucher: Retoucher | None = None) -> list[Image.Image]:
    """The pictures that scaled latents [B, C, h, w] decode to, retouched if there is what does it.

    Raises:
        UserError: a value that is not finite came out, of the network or of the decoder.
    """
    check_finite(studio.model, latents)
    with studio.mixed():
        images = _decoded(studio.model, latents)
    check_finite(studio.model, images)
    if retoucher is not None:
        images = retoucher.retouched(images.float().clamp(-1, 1), latents)
    return [tensor_to_image(image) for image in images]


def _decoded(model: Any, latents: Tensor) -> Tensor:
    """Decoded latents; picture by picture in tiles, where they do not fit into the memory of a GPU at once."""
    try:
        return model.decode_first_stage(latents)
    except torch.OutOfMemoryError:
        log.warning("the pictures do not fit into memory at once: decoded in tiles, whose tones differ a little")
    factor = model.first_stage_model.factor
    return torch.cat([in_tiles(model.decode_first_stage, one[None], factor) for one in latents])

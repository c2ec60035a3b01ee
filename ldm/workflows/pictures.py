"""Latents to pictures, if there is anything in them to be seen."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor, nn

from ldm.pictures.images import tensor_to_image
from ldm.util import UserError
from ldm.workflows.studio import Studio


@torch.no_grad()
def pictures_of(studio: Studio, latents: Tensor) -> list[Image.Image]:
    """The pictures that scaled latents [B, C, h, w] decode to.

    Raises:
        UserError: a value that is not finite came out, of the network or of the decoder.
    """
    check_finite(studio, latents)
    with studio.mixed():
        images = studio.model.decode_first_stage(latents)
    check_finite(studio, images)
    return [tensor_to_image(image) for image in images]


def check_finite(studio: Studio, values: Tensor) -> None:
    """Refuse what a model made when some of it is no number: it would be a grey picture, or a wrong one.

    Raises:
        UserError: with the weight that is to blame, or without one, the precision.
    """
    if bool(values.isfinite().all()):
        return
    broken = broken_weight(studio.model)
    if broken is not None:
        raise UserError(
            f"the weights of '{studio.name}' are damaged: '{broken}' holds a value that is not finite (NaN or inf)"
        )
    raise UserError(
        f"'{studio.name}' came to values beyond what precision '{studio.precision}' can hold: use full or bf16"
    )


def broken_weight(model: nn.Module) -> str | None:
    """The name of the first weight with a value that is not finite."""
    return next((name for name, weight in model.state_dict().items() if not bool(weight.isfinite().all())), None)

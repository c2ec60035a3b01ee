"""Which layers of a network restyling changes."""

from __future__ import annotations

from typing import Any

from ldm.control import Sites, late_decoder, sites
from ldm.util import UserError
from ldm.workflows.inversion.invert import unet_of


def attention_sites(model: Any, layers: str | tuple[int, ...] | None) -> Sites:
    """Self-attention of the decoder blocks that are named; of its later half, when none are.

    Raises:
        UserError: there is no such block, or it has no self-attention.
    """
    if layers is None:
        return sites(unet_of(model), late_decoder(unet_of(model)))
    numbers = [part.strip() for part in layers.split(",")] if isinstance(layers, str) else list(map(str, layers))
    if not all(number.isdecimal() for number in numbers):
        raise UserError(f"--attn_layer takes numbers of decoder blocks like 6,7,8, got '{layers}'")
    return sites(unet_of(model), numbers)


def block_numbers(found: Sites) -> tuple[int, ...]:
    """The decoder blocks of some sites."""
    return tuple(dict.fromkeys(int(name.split(".")[1]) for name in found))


def detail_sites(model: Any) -> Sites:
    """The last residual blocks of the later half of the decoder: blocks 6 to 11 of Stable Diffusion."""
    return sites(unet_of(model), late_decoder(unet_of(model)), kind="residual")

"""Which layers of a network restyling changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ldm.control import Sites, late_decoder, sites
from ldm.util import UserError
from ldm.workflows.inversion.invert import unet_of


@dataclass(frozen=True)
class Layers:
    """What restyling changes: self-attention, the decoder blocks that it is in, and residual blocks (for detail)."""

    attention: Sites
    blocks: tuple[int, ...]
    residual: Sites


def changed_layers(model: Any, blocks: str | tuple[int, ...] | None = None) -> Layers:
    """The self-attention of the decoder blocks that are named; of the decoder's later half, when none are.

    That half is blocks 6 to 11 of Stable Diffusion. Detail is always added to the last residual block of each of it.

    Raises:
        UserError: there is no such block, or it has no self-attention.
    """
    unet = unet_of(model)
    half = late_decoder(unet)
    numbers = (
        [part.strip() for part in blocks.split(",")] if isinstance(blocks, str) else [str(n) for n in blocks or ()]
    )
    if not all(number.isdecimal() for number in numbers):
        raise UserError(f"--attn_layer takes numbers of decoder blocks like 6,7,8, got '{blocks}'")
    attention = sites(unet, half if blocks is None else numbers)
    found = tuple(dict.fromkeys(int(name.split(".")[1]) for name in attention))
    return Layers(attention, found, sites(unet, half, kind="residual"))

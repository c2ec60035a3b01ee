"""Which layers of a network restyling changes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ldm.control import Sites, late_decoder, sites
from ldm.util import UserError
from ldm.workflows.inversion.invert import unet_of

COMMA = re.compile(r",(?![^{]*\})")  # not within braces
NAMED = re.compile(r"\d+|(?:input_blocks|middle_block|output_blocks)\b.*")
Blocks = tuple[int | str, ...]  # numbers of decoder blocks, and patterns of layers


@dataclass(frozen=True)
class Layers:
    """What restyling changes: self-attention, what it was named by, and residual blocks (for detail)."""

    attention: Sites
    blocks: Blocks
    residual: Sites


def changed_layers(model: Any, blocks: str | Blocks | None = None) -> Layers:
    """The self-attention of the decoder blocks that are named; of the decoder's later half, when none are.

    That half is blocks 6 to 11 of Stable Diffusion, 3 to 5 of Stable Diffusion XL. Detail is always added to the last
    residual block of each of it.

    Args:
        blocks: numbers of decoder blocks, or patterns of single layers, see ``ldm.control.sites``.

    Raises:
        UserError: there is no such block, or it has no self-attention.
    """
    unet = unet_of(model)
    half = late_decoder(unet)
    parts = COMMA.split(blocks) if isinstance(blocks, str) else [str(part) for part in blocks or ()]
    parts = [part.strip() for part in parts]
    if not all(NAMED.fullmatch(part) for part in parts):
        raise UserError(
            "--attn_layer takes numbers of decoder blocks like 6,7,8, or patterns like "
            f"output_blocks.3.1.transformer_blocks.{{0..1}}, got '{blocks}'"
        )
    attention = sites(unet, half if blocks is None else parts)
    found: Blocks = tuple(int(part) if part.isdecimal() else part for part in parts)
    if all(isinstance(part, int) for part in found):
        found = tuple(dict.fromkeys(int(name.split(".")[1]) for name in attention))
    return Layers(attention, found, sites(unet, half, kind="residual"))

"""What a condition is made of: the parts that the network is fed, and where they come from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ldm.modules.encoders.base import AbstractEncoder, IdentityEncoder
from ldm.modules.encoders.needs import Need
from ldm.util import UserError

Parts: TypeAlias = dict[str, Any]
Condition: TypeAlias = Tensor | Parts | list[Tensor] | None

# which parts of a condition each kind uses: channels beside the latent, a context, a vector, and how rows make films
KINDS: dict[str | None, tuple[str, ...]] = {
    None: (),
    "concat": ("c_concat",),
    "crossattn": ("c_crossattn",),
    "hybrid": ("c_concat", "c_crossattn"),
    "adm": ("c_adm",),
    "hybrid-adm": ("c_concat", "c_crossattn", "c_adm"),
    "crossattn-adm": ("c_crossattn", "c_adm"),
    "video": ("c_concat", "c_crossattn", "c_adm", "c_frames"),
}

CONTEXT = Need("context", "a context [B, N, D], as the network takes it")
CHANNELS = Need("low_res", "pictures [B, 3, h, w] in [-1, 1], as large as the latents", 3)
PICTURE = Need("image", "pictures [B, 3, H, W] in [-1, 1]", 3)
MASK = Need("mask", "masks [B, 1, H, W], 1 where something new is wanted and 0 elsewhere", 1)
# what is given as it is, where a model has a part that neither its encoder nor its class makes
AS_IT_IS = {
    "c_concat": Need("c_concat", "channels [B, *, h, w] beside the latents"),
    "c_crossattn": Need("c_crossattn", "a context [B, N, D]"),
    "c_adm": Need("c_adm", "vectors [B, D] or classes [B]"),
    "c_frames": Need("c_frames", "[B, T]: rows are frames of films of T, 1 where one is a picture on its own"),
}


def as_parts(condition: Condition, kind: str | None) -> Parts:
    """A condition as a dictionary of parts; a bare tensor or list becomes the one part that ``kind`` uses."""
    if isinstance(condition, dict):
        return condition
    if condition is None or kind is None:
        return {}
    part = KINDS[kind][0]
    if part == "c_adm":
        return {part: condition}
    return {part: condition if isinstance(condition, list) else [condition]}


def encoder_takes(encoder: nn.Module | None, part: str, is_first_stage: bool = False) -> Need | None:
    """What an encoder encodes into ``part`` of a condition, where that is not a prompt."""
    if is_first_stage:
        return PICTURE
    if isinstance(encoder, IdentityEncoder | nn.Identity):
        return CONTEXT if part == "c_crossattn" else CHANNELS
    return encoder.takes if isinstance(encoder, AbstractEncoder) else None


def encoded_part(kind: str | None) -> str:
    """The part of a condition that comes from the encoder, for a ``conditioning_key``."""
    parts = KINDS[kind] or ("c_crossattn",)
    return "c_crossattn" if "c_crossattn" in parts else parts[0]


def check_size(
    channels: Iterable[Tensor],
    size: tuple[int, int],
    has: str = "the condition has channels of",
    beside: str = "latents of",
) -> None:
    """Raises UserError when what is put beside the latents [..., h, w] is not as large as they are, (h, w)."""
    for tensor in channels:
        if tuple(tensor.shape[-2:]) != tuple(size):
            here, there = (" x ".join(map(str, sides)) for sides in (tensor.shape[-2:], size))
            raise UserError(f"{has} {here} beside {beside} {there}; give a picture that fits")


def in_rows(values: Any, rows: int) -> Tensor:
    """A number, numbers or a tensor [1 or B, ...] as a tensor [B, ...] on the CPU or where it is.

    ``rows`` is B; another number of rows is left for ``expand_condition`` to complain about.
    """
    values = torch.as_tensor(values)
    values = values.reshape(1) if values.dim() == 0 else values
    return values.expand(rows, *values.shape[1:]) if values.shape[0] == 1 else values

"""What a conditioner's condition is made of: names, numbers, and the parts that the network is fed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ldm.models.diffusion.condition import Parts
from ldm.models.diffusion.guidance import expand_condition, rows_of
from ldm.modules.encoders.needs import Need
from ldm.util import UserError

# the part of a condition, as the network is fed it -> as the conditioner calls it
PARTS = {"c_crossattn": "crossattn", "c_adm": "vector", "c_concat": "concat"}
# keyword of ``condition`` -> what the conditioner calls it
KEYS = {
    "original_size": "original_size_as_tuple",
    "crop": "crop_coords_top_left",
    "target_size": "target_size_as_tuple",
    "aesthetic_score": "aesthetic_score",
    "class_label": "cls",
}
NEEDS = {
    "original_size": Need("original_size", "(height, width) of the picture before it was scaled, in pixels"),
    "crop": Need("crop", "(top, left) of the crop, in pixels"),
    "target_size": Need("target_size", "(height, width) that is made, in pixels"),
    "aesthetic_score": Need("aesthetic_score", "how beautiful it is to be, 0 to 10"),
    "class_label": Need("class_label", "classes [B], numbers from 0"),
}
AESTHETIC_SCORE, NEGATIVE_AESTHETIC_SCORE = 6.0, 2.5  # what the public programs give


def as_fed(made: Mapping[str, Tensor]) -> Parts:
    """The conditioner's parts as the network is fed them."""
    return {
        part: made[name] if part == "c_adm" else [made[name]] for part, name in PARTS.items() if name in made
    }


def as_made(parts: Parts) -> dict[str, Tensor]:
    """The parts that the network is fed as the conditioner made them."""
    return {
        name: parts[part] if part == "c_adm" else torch.cat(expand_condition(parts[part], rows_of(parts[part])), dim=1)
        for part, name in PARTS.items() if part in parts
    }  # fmt: skip


def as_numbers(name: str, value: Any) -> Tensor:
    """A size or a score, or one for each picture, as a tensor [1 or B, n] float32.

    Raises:
        UserError: a size that is not two numbers, or no numbers at all.
    """
    if isinstance(value, (list, tuple)) and value and all(isinstance(part, Tensor) for part in value):
        value = torch.stack([part.reshape(-1) for part in value], dim=1)  # a batch's tuples, collated
    try:
        numbers = torch.as_tensor(value, dtype=torch.float32, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"'{name}' is {NEEDS[name].what}, got {value!r}") from error
    wanted = 1 if name in ("aesthetic_score", "class_label") else 2
    numbers = numbers.reshape(-1, 1) if wanted == 1 else torch.atleast_2d(numbers)
    if numbers.dim() != 2 or numbers.shape[1] != wanted or not numbers.isfinite().all():
        raise UserError(f"'{name}' is {NEEDS[name].what}, got {value!r}")
    return numbers

"""cloneofsimo's files (Low-rank Adaptation for Fast Text-to-Image Diffusion Fine-tuning): pairs by number, no names.

Safetensors: ``unet:<i>:up``, ``unet:<i>:down``, ``text_encoder:<i>:...`` and learned words, which the header marks. The
``.pt`` form is a list of tensors, up, down, up, down, for one network a file. Numbers follow the module order of early
diffusers, see ``ldm.additions.lora.names``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ldm.checkpoint.lora.file import TEXT, UNET, Key, Parts
from ldm.util import UserError

EMBED = "<embed>"  # the header's value for a word
ANY = "any"  # the network of a list: UNet or text encoder, whichever it fits
_NUMBERED = re.compile(r"(unet|text_encoder):(\d+):(up|down)$")


def is_numbered(keys: Iterable[str]) -> bool:
    """Whether keys are of this family."""
    return any(_NUMBERED.match(key) for key in keys)


def read_numbered(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[dict[Key, Parts], Parts]:
    """Pairs by network and number, and words [n, D] by name."""
    modules: dict[Key, Parts] = {}
    words: Parts = {}
    for key, value in tensors.items():
        match = _NUMBERED.match(key)
        if match is not None:
            network = UNET if match[1] == "unet" else TEXT
            modules.setdefault(Key(network, match[2]), {})[f"lora_{match[3]}"] = value
        elif metadata.get(key) == EMBED or value.dim() <= 2:
            words[key] = value[None] if value.dim() == 1 else value
    return modules, words


def read_pairs(values: Sequence[Any], path: Path) -> dict[Key, Parts]:
    """The pairs of a list.

    Raises:
        UserError: it is no list of pairs of matrices.
    """
    if not values or len(values) % 2 or not all(isinstance(value, Tensor) and value.dim() >= 2 for value in values):
        raise UserError(f"'{path}' is no LoRA: it holds a list, but not of pairs of matrices")
    pairs = zip(values[::2], values[1::2], strict=True)
    return {Key(ANY, str(i)): {"lora_up": up, "lora_down": down} for i, (up, down) in enumerate(pairs)}

"""What a LoRA file holds, whatever family it is of: modules by name, each with its parts, and words.

Parts have kohya's and LyCORIS' names: ``lora_down``, ``lora_up``, ``lora_mid``, ``hada_*``, ``lokr_*``, ``alpha``,
``dora_scale``, ``diff``, ``diff_b``, ``w_norm``, ``b_norm``. What they mean is said in ``ldm.additions.lora.kinds``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ldm.util import UserError, printable

UNET, TEXT, TEXT_2 = "unet", "text_encoder", "text_encoder_2"

Parts = dict[str, Tensor]


class Key(NamedTuple):
    """A module of a file: the network that it is in, and its path with underscores for dots.

    Paths are those of diffusers and transformers, or CompVis'; a family without names has numbers.
    """

    network: str
    module: str

    def __str__(self) -> str:
        return f"{self.network}.{self.module}"


@dataclass
class LoraFile:
    """A file that changes weights of a model.

    Attributes:
        path: where it was read.
        family: whose spelling it has: kohya, diffusers, peft or cloneofsimo.
        modules: what it changes.
        words: learned words in the same file: word -> [n, D].
        metadata: the header's text fields.
        unknown: keys that no part of a LoRA has.
    """

    path: Path
    family: str
    modules: dict[Key, Parts]
    words: dict[str, Tensor] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    @property
    def networks(self) -> list[str]:
        """The networks that it changes."""
        return sorted({key.network for key in self.modules})


_PLAIN = ("alpha", "dora_scale", "diff", "diff_b", "w_norm", "b_norm")
_LYCORIS = r"hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2)"
_END = re.compile(
    rf"\.(?:(?P<plain>{'|'.join(_PLAIN)}|{_LYCORIS})"
    r"|lora_(?P<kohya>down|up|mid)\.weight"
    r"|lora(?:_linear_layer)?\.(?P<diffusers>down|up)\.weight"
    r"|lora_(?P<peft>[AB])(?:\.[\w-]+)?\.weight"
    r"|(?P<magnitude>lora_magnitude_vector)(?:\.[\w-]+)*)$"
)
_PEFT = {"A": "down", "B": "up"}
_REFUSED = (
    (re.compile(r"\.oft_(?:blocks|diag|r)(?:\.|$)|\.oft_R(?:\.|$)|\.boft_"), "OFT"),
    (re.compile(r"\.[ab][12]\.weight$|\.bm[12]\.weight$"), "GLoRA"),
    (re.compile(r"\.on_input$|\.ia3_l(?:\.|$)"), "IA3"),
    (re.compile(r"\.vera_lambda_|\.hada_w3_|\.lora_embedding_"), "another kind than LoRA, LoHa, LoKr and DoRA"),
)


def split_key(key: str) -> tuple[str, str] | None:
    """The module and the part that a key names; None where it names no part."""
    match = _END.search(key)
    if match is None:
        return None
    stem = key[: match.start()]
    if match["plain"]:
        return stem, match["plain"]
    if match["magnitude"]:
        return stem, "dora_scale"
    return stem, f"lora_{match['kohya'] or match['diffusers'] or _PEFT[match['peft']]}"


def refuse_other_kinds(keys: Iterable[str], path: Path) -> None:
    """Raises UserError: a key belongs to a kind of adapter that is not read here, by its name."""
    for key in keys:
        name = next((name for pattern, name in _REFUSED if pattern.search(key)), None)
        if name is not None:
            raise UserError(
                f"'{path}' is {name} ('{printable(key)}'), which is not read here; LoRA, LoHa, LoKr, DoRA and "
                "full differences are"
            )


def check_numbers(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raises UserError: something is no number."""
    for key, value in tensors.items():
        if value.dim() and not value.is_floating_point():
            raise UserError(f"'{path}' is no LoRA: '{printable(key)}' in it has the type {value.dtype}")
        if not torch.isfinite(value).all():
            raise UserError(f"'{path}' is damaged: '{printable(key)}' in it has values that are no numbers (NaN)")

"""diffusers' and PEFT's spellings: dotted paths, in four forms since 2023, and PEFT's settings in the header.

``<path>.processor.to_q_lora.down.weight`` (with or without ``unet.``), ``unet.<path>.lora.down.weight`` and
``text_encoder.<path>.lora_linear_layer.down.weight``, ``unet.<path>.lora_A.weight``, and
``base_model.model.<path>.lora_A.weight`` in PEFT's own folders.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch

from ldm.checkpoint.lora.file import TEXT, TEXT_2, UNET, Key, Parts
from ldm.util import UserError, parse_json_object

SETTINGS = "lora_adapter_metadata"  # the header's field
PREFIXES = {"unet.": UNET, "text_encoder.": TEXT, "text_encoder_2.": TEXT_2, "diffusion_model.": UNET}
PEFT_PREFIX = "base_model.model."
_PROCESSOR = re.compile(r"(?P<path>.+?)(?:\.processor)?\.to_(?P<name>q|k|v|out)_lora\.(?P<part>down|up)\.weight$")
_UNET_LIKE = re.compile(
    r"(?:down_blocks|up_blocks|mid_block|conv_in|conv_out|conv_norm_out|time_embedding|add_embedding"
    r"|input_blocks|output_blocks|middle_block|time_embed|label_emb|out)\."
)


def from_processor(key: str) -> str:
    """A key of attention processors as the later spelling has it; other keys as they are."""
    match = _PROCESSOR.match(key)
    if match is None:
        return key
    name = match["name"]
    if match["path"].endswith("self_attn"):
        return f"{match['path']}.{name}_proj.lora.{match['part']}.weight"
    return f"{match['path']}.to_{'out.0' if name == 'out' else name}.lora.{match['part']}.weight"


def key_of(stem: str, network: str | None = None) -> Key:
    """The module that the beginning of a key names.

    Args:
        network: where the path says nothing about it; None: by the look of the path.
    """
    stem = stem.removeprefix(PEFT_PREFIX)
    for prefix, own in PREFIXES.items():
        if stem.startswith(prefix):
            return Key(own, stem.removeprefix(prefix).replace(".", "_"))
    if network is None:
        network = UNET if _UNET_LIKE.match(stem + ".") or ".attn" in stem else TEXT
    return Key(network, stem.replace(".", "_"))


def settings_in(metadata: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """PEFT's settings for each network, as the header of a file has them; empty for older files.

    Raises:
        UserError: the field is no JSON object.
    """
    text = metadata.get(SETTINGS)
    fields = parse_json_object(text, f"the header's '{SETTINGS}'") if text else {}
    return {
        network: {key.removeprefix(prefix): value for key, value in fields.items() if key.startswith(prefix)}
        for prefix, network in PREFIXES.items()
        if any(key.startswith(prefix) for key in fields)
    }


def set_alphas(modules: Mapping[Key, Parts], settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Give modules the alpha that PEFT's settings say; rsLoRA's factor alpha / sqrt(r) is put into it.

    Raises:
        UserError: a setting is no number.
    """
    for key, parts in modules.items():
        said = settings.get(key.network)
        if not said or "lora_down" not in parts or "alpha" in parts:
            continue
        rank = parts["lora_down"].shape[0]
        alpha = _by_pattern(said.get("alpha_pattern"), key.module, said.get("lora_alpha", rank))
        if said.get("use_rslora"):
            alpha = alpha * math.sqrt(rank)
        parts["alpha"] = torch.tensor(alpha, device="cpu")


def _by_pattern(patterns: Any, module: str, usual: Any) -> float:
    """What the first pattern that a module's path is, or ends in, says; else what is usual."""
    names = {str(name).lstrip("^").replace("\\.", ".").replace(".", "_"): own for name, own in (patterns or {}).items()}
    value = next((own for name, own in names.items() if f"_{module}".endswith(f"_{name}")), usual)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"the settings of a LoRA give '{value}' as its alpha; it must be a number")
    return float(value)

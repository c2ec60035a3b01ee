"""LoRA files as other programs read them: in kohya's spelling, or in PEFT's, which is diffusers'."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ldm.checkpoint.lora.diffusers import SETTINGS
from ldm.checkpoint.lora.file import TEXT, TEXT_2, UNET, Parts
from ldm.checkpoint.saving import save_state_dict
from ldm.util import UserError

KOHYA, KOHYA_SGM, PEFT = SPELLINGS = ("kohya", "kohya_sgm", "peft")
_PREFIXES = {UNET: "lora_unet_", TEXT: "lora_te_"}
_PREFIXES_OF_TWO = {UNET: "lora_unet_", TEXT: "lora_te1_", TEXT_2: "lora_te2_"}
_WEIGHTS = ("lora_up", "lora_down", "lora_mid")
_PEFT_PARTS = {"lora_down": "lora_A.weight", "lora_up": "lora_B.weight", "dora_scale": "lora_magnitude_vector"}


@dataclass(frozen=True)
class Written:
    """A module to write: the network, its path with dots, and its parts."""

    network: str
    name: str
    parts: Mapping[str, Tensor]


def write_lora(
    path: str | os.PathLike[str],
    modules: Sequence[Written],
    spelling: str = KOHYA,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a LoRA.

    Args:
        path: ``.safetensors``; other suffixes as ``save_state_dict`` has them.
        spelling: kohya or kohya_sgm (every kind; the second has the UNet's own paths), or peft (LoRA, and DoRA by
            rows), with the settings in the header.
        metadata: text fields of the header.

    Raises:
        UserError: there is nothing to write, a spelling that is not known or has no place for a kind, a full disk or an
            unwritable folder; an older file survives.
    """
    if spelling not in SPELLINGS:
        raise UserError(f"unknown spelling '{spelling}' of LoRA files; known: {', '.join(SPELLINGS)}")
    if not modules:
        raise UserError(f"there is nothing to write to '{path}': no layer is changed")
    about = dict(metadata or {})
    if spelling in (KOHYA, KOHYA_SGM):
        tensors = kohya_tensors(modules)
        about = kohya_fields(modules) | about
    else:
        tensors = peft_tensors(modules)
        about |= {SETTINGS: json.dumps(peft_settings(modules), sort_keys=True)}
    save_state_dict(tensors, path, about)


def kohya_tensors(modules: Sequence[Written]) -> dict[str, Tensor]:
    """``lora_unet_<path>.<part>``; alpha always stands there. Of two text encoders each has a number."""
    found: dict[str, Tensor] = {}
    prefixes = _PREFIXES_OF_TWO if any(module.network == TEXT_2 for module in modules) else _PREFIXES
    for module in modules:
        key = prefixes[module.network] + module.name.replace(".", "_")
        for part, value in module.parts.items():
            if part == "dora_scale" and value.dim() == 1:  # read as one entry a row; others want its axes
                value = value.reshape(-1, *[1] * (module.parts["lora_down"].dim() - 1))
            found[f"{key}.{part}" + (".weight" if part in _WEIGHTS else "")] = value
        if "lora_down" in module.parts and "alpha" not in module.parts:
            found[f"{key}.alpha"] = torch.tensor(float(module.parts["lora_down"].shape[0]))
    return found


def kohya_fields(modules: Sequence[Written]) -> dict[str, str]:
    """What kohya's programs look for in the header: the usual rank and alpha."""
    pairs = [(_rank(m.parts), _alpha(m.parts)) for m in modules if "lora_down" in m.parts]
    if not pairs:
        return {}
    rank, alpha = Counter(pairs).most_common(1)[0][0]
    return {"ss_network_module": "networks.lora", "ss_network_dim": str(rank), "ss_network_alpha": str(alpha)}


def peft_tensors(modules: Sequence[Written]) -> dict[str, Tensor]:
    """``unet.<path>.lora_A.weight`` and so on; alpha goes into the header.

    Raises:
        UserError: a module is of a kind that PEFT has no names for.
    """
    found: dict[str, Tensor] = {}
    for module in modules:
        stray = next((part for part in module.parts if part not in (*_PEFT_PARTS, "alpha")), None)
        magnitude = module.parts.get("dora_scale")
        if stray is not None or (magnitude is not None and magnitude.shape[0] != magnitude.numel()):
            raise UserError(
                f"'{module.name}' has {stray or 'a magnitude by columns'}, for which PEFT has no name; "
                "scripts.merge_lora --rank makes a plain LoRA of it"
            )
        for part, value in module.parts.items():
            if part != "alpha":
                value = value.flatten() if part == "dora_scale" else value
                found[f"{module.network}.{module.name}.{_PEFT_PARTS[part]}"] = value
    return found


def peft_settings(modules: Sequence[Written]) -> dict[str, Any]:
    """The fields of PEFT's LoraConfig, for each network: what is usual, and the modules that differ."""
    settings: dict[str, Any] = {}
    for network in (UNET, TEXT, TEXT_2):
        own = [module for module in modules if module.network == network]
        if not own:
            continue
        rank = Counter(_rank(m.parts) for m in own).most_common(1)[0][0]
        alpha = Counter(_alpha(m.parts) for m in own).most_common(1)[0][0]
        fields = {
            "r": rank,
            "lora_alpha": alpha,
            "rank_pattern": {_ending(m.name): _rank(m.parts) for m in own if _rank(m.parts) != rank},
            "alpha_pattern": {_ending(m.name): _alpha(m.parts) for m in own if _alpha(m.parts) != alpha},
            "target_modules": sorted(_ending(m.name) for m in own),
            "use_dora": any("dora_scale" in m.parts for m in own),
            "use_rslora": False,
            "bias": "none",
            "peft_type": "LORA",
        }
        settings |= {f"{network}.{key}": value for key, value in fields.items()}
    return settings


def _ending(name: str) -> str:
    """A path as PEFT compares it, by its end: transformers 5 has no level ``text_model`` in it, earlier ones have."""
    return name.removeprefix("text_model.")


def _rank(parts: Mapping[str, Tensor]) -> int:
    return parts["lora_down"].shape[0]


def _alpha(parts: Mapping[str, Tensor]) -> float:
    alpha = float(parts["alpha"]) if "alpha" in parts else float(_rank(parts))
    return int(alpha) if alpha.is_integer() else alpha


def as_plain(parts: Mapping[str, Tensor]) -> Parts:
    """Parts in memory of their own, detached."""
    return {name: value.detach().cpu().contiguous() for name, value in parts.items()}

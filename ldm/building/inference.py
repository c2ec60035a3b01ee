"""What a model's YAML says about sampling, under ``inference:``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ldm.building.errors import ConfigError
from ldm.building.values import misfit
from ldm.building.yaml_files import section

# what may stand there; a model's YAML may say more to other programs
TYPES: dict[str, Any] = {
    "steps": int,
    "guidance_scale": float,
    "min_guidance_scale": float,  # of a film's first frame; guidance_scale is the last one's
    "sampler": str,
    "eta": float,
    "width": int,
    "height": int,
    "lora": str | list[str],
    "lora_dir": str,
    "long_prompts": bool,
    "noise_scale": float,
    "settle": int,
    "corrector": str,
    "retoucher": str,
    "start_from": str,  # of films: noise or first
    "inversion": str,
    "inversion_rounds": int,
    "adain_deviation": float,
    "adain_flat": float,
    "keep_flat": float,
}


def inference_defaults(document: Mapping[str, Any]) -> dict[str, Any]:
    """The section ``inference:`` as plain values; empty where there is none.

    Raises:
        ConfigError: a value of the wrong type, or a number that is none.
    """
    found = section(document, "inference")
    for name, hint in TYPES.items():
        value = found.get(name)
        if name not in found:
            continue
        wanted = misfit(value, hint)
        if wanted is not None:
            raise ConfigError(f"'inference.{name}' in the model's YAML must be {wanted}, got {str(value)[:80]!r}")
        if isinstance(value, (int, float)) and not math.isfinite(value):
            raise ConfigError(f"'inference.{name}' in the model's YAML must be a finite number, got {value}")
    return found

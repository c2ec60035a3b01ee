"""The settings of a picture, as its file has them, and the fields of the page that they go into."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldm.pictures.images import read_parameters
from ldm.util import UserError

# parameter of a picture -> what a field is left at without it
FIELDS: dict[str, Any] = {
    "prompt": "",
    "negative_prompt": "",
    "sampler": "*",
    "steps": 0,
    "guidance_scale": 0.0,
    "noise_scale": 1.0,  # which pictures do not say
    "settle": 0,  # likewise
    "width": 0,
    "height": 0,
    "seed": -1,
}


# what else is written into a picture that a prompt alone has made
ALSO = {"eta", "model", "precision", "corrected", "retouched"}


def is_plain(settings: Mapping[str, Any]) -> bool:
    """Whether the fields of the page say all that a picture with these settings was made with."""
    no_field_says = settings.get("eta") or settings.get("noise_scale") == 0  # where 0 is what the model has
    return set(settings) <= FIELDS.keys() | ALSO and not no_field_says


def settings_of(path: str | Path | None) -> dict[str, Any] | None:
    """The settings that are written in a picture; None where there are none that this page has fields for."""
    if path is None:
        return None
    try:
        found = read_parameters(path)
    except UserError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("prompt"), str) else None


def values_of(settings: Mapping[str, Any]) -> list[Any]:
    """What goes into the fields, in the order of FIELDS; a value of another kind than the field's is left out."""
    values = []
    for name, usual in FIELDS.items():
        value = settings.get(name, usual)
        fits = isinstance(value, str) == isinstance(usual, str) and not isinstance(value, bool | list | dict | None)
        values.append(value if fits else usual)
    return values

"""How a model is inverted where options leave it open: as its YAML says, else as the reference does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ldm.building.errors import ConfigError
from ldm.util import UserError
from ldm.workflows.restyle.checks import check_inversion
from ldm.workflows.restyle.plan import StyleIDOptions
from ldm.workflows.restyle.recipe import DDIM, EXACT, INVERSIONS


def usual_inversion(inference: Mapping[str, Any]) -> str:
    """What the section ``inference:`` of a model's YAML says; ``ddim`` where it says nothing.

    Raises:
        ConfigError: there is no such inversion.
    """
    said = str(inference.get("inversion", DDIM))
    if said not in INVERSIONS:
        raise ConfigError(f"'inference.inversion' in the model's YAML must be {' or '.join(INVERSIONS)}, got '{said}'")
    return said


def with_inversion(options: StyleIDOptions, inference: Mapping[str, Any]) -> StyleIDOptions:
    """The options with ``inversion`` settled; what a YAML says gives way where it does not go with what is asked for.

    Raises:
        ConfigError: see ``usual_inversion``.
    """
    if options.inversion is not None:
        return options
    asked = replace(options, inversion=usual_inversion(inference))
    if asked.inversion in EXACT and options.ddim_inv_steps != options.save_feat_steps:
        return replace(options, inversion=DDIM)
    try:
        check_inversion(asked)
    except UserError:
        return replace(options, inversion=DDIM)
    return asked

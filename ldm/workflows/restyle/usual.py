"""How a model is restyled where options leave it open: as its YAML says, else as the reference does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ldm.building.errors import ConfigError
from ldm.util import UserError
from ldm.workflows.restyle.checks import check_inversion
from ldm.workflows.restyle.plan import StyleIDOptions
from ldm.workflows.restyle.recipe import DDIM, DEVIATION, EXACT, INVERSIONS


def as_usual(options: StyleIDOptions, inference: Mapping[str, Any]) -> StyleIDOptions:
    """The options with what the section ``inference:`` of a model's YAML may say settled.

    Raises:
        ConfigError: see ``usual_inversion`` and ``usual_deviation``.
    """
    return with_deviation(with_inversion(options, inference), inference)


def usual_inversion(inference: Mapping[str, Any]) -> str:
    """What the YAML says of the inversion; ``ddim`` where it says nothing.

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


def usual_deviation(inference: Mapping[str, Any]) -> float:
    """What the YAML says of AdaIN's deviation; 1, all of it, where it says nothing.

    Raises:
        ConfigError: it is no share.
    """
    said = float(inference.get("adain_deviation", DEVIATION))
    if not 0 <= said <= 1:
        raise ConfigError(f"'inference.adain_deviation' in the model's YAML must lie between 0 and 1, got {said:g}")
    return said


def with_deviation(options: StyleIDOptions, inference: Mapping[str, Any]) -> StyleIDOptions:
    """The options with ``adain_deviation`` settled, unless there is no AdaIN.

    Raises:
        ConfigError: see ``usual_deviation``.
    """
    if options.adain_deviation is not None or options.without_init_adain:
        return options
    return replace(options, adain_deviation=usual_deviation(inference))

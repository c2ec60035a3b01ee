"""How a model is restyled where options leave it open: as its YAML says, else as the reference does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ldm.building.errors import ConfigError
from ldm.util import UserError
from ldm.workflows.inversion.ways import ROUNDS
from ldm.workflows.restyle.checks import check_inversion
from ldm.workflows.restyle.plan import StyleIDOptions
from ldm.workflows.restyle.recipe import DDIM, DEVIATION, EXACT, FIXED_POINT, INVERSIONS


def as_usual(options: StyleIDOptions, inference: Mapping[str, Any]) -> StyleIDOptions:
    """The options with what the section ``inference:`` of a model's YAML may say settled.

    Raises:
        ConfigError: see ``usual_inversion``, ``with_rounds``, ``with_adain`` and ``with_flat``.
        UserError: see ``with_rounds``.
    """
    inverted = with_rounds(with_inversion(options, inference), inference)
    return with_flat(with_adain(inverted, inference), inference)


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


def with_rounds(options: StyleIDOptions, inference: Mapping[str, Any]) -> StyleIDOptions:
    """The options, whose ``inversion`` is settled, with ``inversion_rounds`` settled if that is what has rounds.

    Raises:
        ConfigError: the YAML's number is negative.
        UserError: rounds are asked for, but it is another inversion.
    """
    if options.inversion != FIXED_POINT:
        if options.inversion_rounds is not None:
            this = f"this is --inversion {options.inversion}"
            raise UserError(f"--inversion_rounds is for --inversion {FIXED_POINT}; {this}")
        return options
    if options.inversion_rounds is not None:
        return options
    said = int(inference.get("inversion_rounds", ROUNDS))
    if said < 0:
        raise ConfigError(f"'inference.inversion_rounds' in the model's YAML must not be negative, got {said}")
    return replace(options, inversion_rounds=said)


def with_adain(options: StyleIDOptions, inference: Mapping[str, Any]) -> StyleIDOptions:
    """The options with ``adain_deviation`` and ``adain_flat`` settled, unless there is no AdaIN.

    Raises:
        ConfigError: the YAML's is no share.
    """
    if options.without_init_adain:
        return options
    everywhere, flat = _share(inference, "adain_deviation"), _share(inference, "adain_flat")
    if options.adain_deviation is None:
        options = replace(options, adain_deviation=DEVIATION if everywhere is None else everywhere)
    return options if options.adain_flat is not None else replace(options, adain_flat=flat)


def with_flat(options: StyleIDOptions, inference: Mapping[str, Any]) -> StyleIDOptions:
    """The options with ``keep_flat`` settled.

    Raises:
        ConfigError: the YAML's is no share.
    """
    if options.keep_flat is not None:
        return options
    return replace(options, keep_flat=_share(inference, "keep_flat") or 0.0)


def _share(inference: Mapping[str, Any], name: str) -> float | None:
    said = inference.get(name)
    if said is None:
        return None
    if not 0 <= said <= 1:
        raise ConfigError(f"'inference.{name}' in the model's YAML must lie between 0 and 1, got {said:g}")
    return float(said)

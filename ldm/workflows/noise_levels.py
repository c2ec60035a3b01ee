"""Noise on what a model is conditioned on: how much of it a request asks for, and whether the model takes any."""

from __future__ import annotations

from ldm.util import UserError
from ldm.workflows.studio import Studio


def check_noise_level(level: int | None) -> None:
    """Raises UserError for a level below 0."""
    if level is not None and level < 0:
        raise UserError(f"--noise_level must be 0 (no noise) or more, got {level}")


def takes_noise(studio: Studio, level: int | None) -> bool:
    """Whether the model adds noise to what it is conditioned on.

    Raises:
        UserError: it does not, but a level was asked for.
    """
    takes = any(need.name == "noise_level" for need in studio.model.needs.optional)
    if level and not takes:
        raise UserError(f"'{studio.name}' adds no noise to what it is shown: leave out --noise_level")
    return takes

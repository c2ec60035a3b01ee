"""Which steps of DDIM a restyling runs, and what gamma is at each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ldm.control.inject import Gamma
from ldm.models.diffusion.loop import Level, Schedule, last_levels
from ldm.util import UserError
from ldm.workflows.restyle.recipe import Recipe, Settled


def executed_levels(schedule: Schedule, steps: int = 50, start_step: int | None = None) -> list[Level]:
    """The levels at which ``stylise`` asks the network, the noisiest first.

    Raises:
        UserError: ``steps`` or ``start_step`` does not fit.
    """
    levels = schedule.levels(steps, "leading")
    start_step = len(levels) - 2 if start_step is None else start_step
    return list(last_levels(levels, start_step)[:-1])


def executed_timesteps(schedule: Schedule, steps: int = 50, start_step: int | None = None) -> list[float]:
    """What the network is told there; see ``executed_levels``."""
    return [level.told for level in executed_levels(schedule, steps, start_step)]


def gamma_by_level(values: Sequence[float], levels: Sequence[Level]) -> dict[int, float]:
    """A gamma for each level's index: the values spread evenly in the order of sampling, straight in between.

    Raises:
        UserError: no value at all.
    """
    if not values:
        raise UserError("a schedule of gamma needs at least one value, such as 0.9,0.5")
    places = np.linspace(0, len(values) - 1, len(levels))
    gammas = np.interp(places, np.arange(len(values)), np.asarray(values, dtype=np.float64))
    return {level.index: float(gamma) for level, gamma in zip(levels, gammas, strict=True)}


def gamma_at(recipe: Settled, levels: Sequence[Level]) -> Gamma:
    """The gamma of a recipe: one, or one for each level's index."""
    return recipe.gamma if recipe.gamma_schedule is None else gamma_by_level(recipe.gamma_schedule, levels)


def sampled_timesteps(recipe: Recipe, schedule: Schedule) -> list[float]:
    """The timesteps at which sampling asks the network, the noisiest first.

    Raises:
        UserError: numbers of steps that the schedule does not have, or that do not fit each other.
    """
    start = recipe.start_step
    if start is not None:
        start = min(start, len(executed_timesteps(schedule, recipe.save_feat_steps)) + 1)
    timesteps = executed_timesteps(schedule, recipe.save_feat_steps, start)
    visited = {level.told for level in schedule.upwards(recipe.ddim_inv_steps)[:-1]}
    if not visited.issuperset(timesteps):
        raise UserError(
            f"--save_feat_steps {recipe.save_feat_steps} does not fit --ddim_inv_steps {recipe.ddim_inv_steps}: "
            "sampling would need features of timesteps that the inversion does not visit"
        )
    return timesteps

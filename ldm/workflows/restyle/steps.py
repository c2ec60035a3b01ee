"""Which steps a restyling runs."""

from __future__ import annotations

from dataclasses import replace

from ldm.models.diffusion.loop import Level, Schedule, last_levels
from ldm.models.diffusion.samplers.sparse import evenly_among
from ldm.util import UserError
from ldm.workflows.inversion.ways import ROUNDS, WAYS, Refined, Sparse, Way
from ldm.workflows.restyle.recipe import DDIM, FAST, FIXED_POINT, Recipe


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


def way_of(schedule: Schedule, recipe: Recipe) -> Way:
    """How pictures are inverted, and sampling undoes it.

    Raises:
        UserError: numbers of steps that the schedule does not have.
    """
    if recipe.inversion == FIXED_POINT and not recipe.fast:
        return Refined(ROUNDS if recipe.inversion_rounds is None else recipe.inversion_rounds)
    if not recipe.fast:
        return WAYS[recipe.inversion or DDIM]()
    levels = executed_levels(schedule, recipe.save_feat_steps, recipe.start_step)
    return Sparse(evenly_among(levels[0].index, levels[-1].index, len(levels) // FAST)) if levels else Way()


def walk(schedule: Schedule, recipe: Recipe) -> list[Level]:
    """The levels that sampling goes along, the last one where it arrives.

    What is exactly undone (see ``Way``) arrives at the level where the inversion took the clean latent to be.

    Raises:
        UserError: numbers of steps that the schedule does not have.
    """
    levels = executed_levels(schedule, recipe.save_feat_steps, recipe.start_step)
    arrival = schedule.levels(recipe.save_feat_steps, "leading")[-1:]
    begun = schedule.upwards(recipe.save_feat_steps)[0].index  # the level of the clean latent
    there = bool(levels) and levels[-1].index == begun and way_of(schedule, recipe).exact
    return levels if there else [*levels, *arrival]


def sampled_steps(recipe: Recipe, schedule: Schedule) -> int:
    """How many steps sampling runs; ``start_step``, but not more than there are.

    Raises:
        UserError: numbers of steps that the schedule does not have.
    """
    most = len(executed_levels(schedule, recipe.save_feat_steps)) + 1
    start = None if recipe.start_step is None else min(recipe.start_step, most)
    return len(executed_levels(schedule, recipe.save_feat_steps, start))


def sampled_timesteps(recipe: Recipe, schedule: Schedule) -> list[float]:
    """The timesteps at which sampling asks the network on its whole walk, the noisiest first.

    Raises:
        UserError: numbers of steps that the schedule does not have, or that do not fit each other.
    """
    recipe = replace(recipe, start_step=sampled_steps(recipe, schedule))
    levels = walk(schedule, recipe)[:-1]
    timesteps = [level.told for level in way_of(schedule, recipe).asks(levels)]
    visited = {level.told for level in schedule.upwards(recipe.ddim_inv_steps)[:-1]}
    alike = recipe.ddim_inv_steps == recipe.save_feat_steps
    if not alike and (recipe.fast or way_of(schedule, recipe).exact):
        what = "--fast" if recipe.fast else f"--inversion {recipe.inversion}"
        raise UserError(f"{what} needs equal numbers of steps: --save_feat_steps as many as --ddim_inv_steps")
    if not visited.issuperset(timesteps):
        raise UserError(
            f"--save_feat_steps {recipe.save_feat_steps} does not fit --ddim_inv_steps {recipe.ddim_inv_steps}: "
            "sampling would need features of timesteps that the inversion does not visit"
        )
    return timesteps

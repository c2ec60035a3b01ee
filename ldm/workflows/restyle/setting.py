"""What does not change within a restyling run: a model, and the layers, steps and sizes that options mean for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ldm.control import Sites
from ldm.models.diffusion.loop import Schedule
from ldm.pictures.sizing import USUAL_SIDE, Sizing, sizing_for
from ldm.util import UserError
from ldm.workflows.restyle.layers import attention_sites, detail_sites
from ldm.workflows.restyle.plan import StyleIDOptions
from ldm.workflows.restyle.recipe import Recipe
from ldm.workflows.restyle.stylise import executed_timesteps
from ldm.workflows.studio import Studio


@dataclass(frozen=True)
class Setting:
    """A studio and what of it does not change within a run.

    Attributes:
        fingerprint: of the weights.
        sites, detail: the attention and the residual blocks that a recipe changes.
        timesteps: what the network is told in sampling, the noisiest first.
        context: the empty prompt, of one row.
    """

    studio: Studio
    fingerprint: str
    sites: Sites
    detail: Sites
    timesteps: tuple[float, ...]
    sizing: Sizing
    context: Any

    @property
    def model(self) -> Any:
        return self.studio.model

    def about(self) -> dict[str, str]:
        """What everything that the model computes depends on."""
        return {"model": self.fingerprint, "precision": self.studio.effective_precision}


def make_setting(options: StyleIDOptions, studio: Studio) -> Setting:
    """Settle layers, steps and sizes for a model.

    Raises:
        UserError: an option does not fit it.
    """
    model = studio.model
    with torch.no_grad():
        context = model.condition([""])
    return Setting(
        studio=studio,
        fingerprint=studio.fingerprint,
        sites=attention_sites(model, options.attn_layer),
        detail=detail_sites(model),
        timesteps=tuple(sampled_timesteps(options, model.schedule)),
        sizing=sizing_for(model, options.H, options.W, options.crop, options.longest or usual_side(studio.inference)),
        context=context,
    )


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


def usual_side(inference: Mapping[str, Any]) -> int:
    """The longest side without options: 512, or what the model's YAML says it was trained at, if that is more."""
    return max(USUAL_SIDE, *(int(inference.get(name) or 0) for name in ("height", "width")))

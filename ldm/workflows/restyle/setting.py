"""What does not change within a restyling run: a model, and the layers, steps and sizes that options mean for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ldm.control import Sites
from ldm.pictures.sizing import USUAL_SIDE, Sizing, sizing_for
from ldm.util import UserError
from ldm.workflows.inversion.empty_prompt import EmptyPrompt
from ldm.workflows.prompts import equally_long
from ldm.workflows.refiner import check_not_refiner
from ldm.workflows.restyle.layers import Blocks, changed_layers
from ldm.workflows.restyle.plan import StyleIDOptions
from ldm.workflows.restyle.steps import sampled_steps, sampled_timesteps
from ldm.workflows.studio import Studio


@dataclass(frozen=True)
class Setting:
    """A studio and what of it does not change within a run.

    Attributes:
        fingerprint: of the weights.
        sites, blocks: the attention that a recipe changes, and what it is named by in records.
        detail: the residual blocks that it changes.
        timesteps: what the network is told in sampling, the noisiest first.
        steps: of sampling; at some of them the network may not be asked.
        context: the empty prompt.
        away: what inversions are guided away from, as long as the context; None: nothing.
        loras: what is on the model, as records name it.
    """

    studio: Studio
    fingerprint: str
    sites: Sites
    blocks: Blocks
    detail: Sites
    timesteps: tuple[float, ...]
    steps: int
    sizing: Sizing
    context: EmptyPrompt
    away: Any = None
    loras: tuple[str, ...] = ()

    @property
    def model(self) -> Any:
        return self.studio.model

    def about(self) -> dict[str, str]:
        """What everything that the model computes depends on."""
        about = {"model": self.fingerprint, "precision": self.studio.effective_precision}
        about |= {"condition": "nothing at the picture's size"} if self.context.is_sized else {}
        return about | ({"loras": ", ".join(self.loras)} if self.loras else {})


def make_setting(options: StyleIDOptions, studio: Studio, loras: Sequence[str] = ()) -> Setting:
    """Settle layers, steps and sizes for a model, on which LoRAs may be.

    Raises:
        UserError: an option does not fit it.
    """
    check_not_refiner(studio)
    model = studio.model
    layers = changed_layers(model, options.attn_layer)
    return Setting(
        studio=studio,
        fingerprint=studio.fingerprint,
        sites=layers.attention,
        blocks=layers.blocks,
        detail=layers.residual,
        timesteps=tuple(sampled_timesteps(options, model.schedule)),
        steps=sampled_steps(options, model.schedule),
        sizing=sizing_for(model, options.H, options.W, options.crop, options.longest or usual_side(studio.inference)),
        context=EmptyPrompt(model),
        away=away_from(model, options.negative),
        loras=tuple(loras),
    )


@torch.no_grad()
def away_from(model: Any, prompt: str | None) -> Any:
    """The condition of a prompt that inversions are guided away from; None without one.

    Raises:
        UserError: the model is told sizes, or the prompt takes more than the empty one.
    """
    if prompt is None:
        return None
    nothing = EmptyPrompt(model)
    if nothing.is_sized:
        raise UserError("--negative is for models that are asked under a prompt alone; this one is told sizes, too")
    context = nothing.at((0, 0))
    same, away = equally_long(context, model.condition([prompt]))
    if same["c_crossattn"][0].shape != context["c_crossattn"][0].shape:
        raise UserError("--negative is longer than what the text encoder reads at once: a few words would do")
    return away


def usual_side(inference: Mapping[str, Any]) -> int:
    """The longest side without options: 512, or what the model's YAML says it was trained at, if that is more."""
    return max(USUAL_SIDE, *(int(inference.get(name) or 0) for name in ("height", "width")))

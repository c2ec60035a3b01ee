"""How pictures of prompts are made, with nothing left open."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from ldm.models.diffusion.sampling import step_rule
from ldm.pictures.images import check_size
from ldm.util import UserError
from ldm.workflows.expectations import report_size
from ldm.workflows.request import Txt2ImgOptions
from ldm.workflows.studio import Studio

log = logging.getLogger(__name__)

DEFAULTS = {
    "steps": 50, "guidance_scale": 7.5, "sampler": "ddim", "noise_scale": 1.0, "settle": 0, "long_prompts": False
}  # fmt: skip
LOUDEST = 2.0  # times the deviation of the noise that networks were trained with
MOST_SETTLED = 64  # noises: a mean over more is the same


@dataclass(frozen=True)
class Plan:
    """The options with nothing left open; what is written into each picture."""

    negative_prompt: str
    steps: int
    sampler: str
    eta: float
    guidance_scale: float
    width: int
    height: int
    model: str
    precision: str
    long_prompts: bool = False
    noise_scale: float = 1.0
    settle: int = 0

    def about(self) -> dict[str, Any]:
        """What is written into a picture; what few ask for only where it is on."""
        silent = {"long_prompts": False, "noise_scale": 1.0, "settle": 0}
        return {name: value for name, value in asdict(self).items() if name not in silent or value != silent[name]}


def check_needs(model: Any, given: Collection[str] = ()) -> None:
    """Refuse a model that needs more than it is given.

    Raises:
        UserError: it says what is missing, and which command has it.
    """
    if {need.name for need in model.needs.required} - set(given):
        raise UserError(model.needs.sentence)


def check_job(studio: Studio, program: str) -> None:
    """Refuse a model that is for another program than this one.

    Raises:
        UserError: it names the right one.
    """
    needs = studio.model.needs
    if needs.program != program:
        right = needs.sentence if needs else "this model makes pictures from prompts: python txt2img.py takes it"
        raise UserError(f"python {program} is for other models than '{studio.name}'; {right}")


def make_plan(options: Txt2ImgOptions, studio: Studio, given: Collection[str] = ()) -> Plan:
    """Options first, then the model's ``inference:`` section, then what is usual.

    Args:
        given: what the model's condition gets besides prompts, by the names of ``needs``.

    Raises:
        UserError: the model needs more than it is given, or the size, the sampler or the number of steps does not fit.
    """
    model = studio.model
    check_needs(model, given)
    factor = model.first_stage_model.factor
    for flag, asked, own in (("--C", options.channels, model.channels), ("--f", options.factor, factor)):
        if asked is not None and asked != own:
            raise UserError(f"{flag} {asked} does not fit the model, whose latents have {own}")
    usual = usual_settings(studio)

    def choose(option: str) -> Any:
        given = getattr(options, option)
        return usual[option] if given is None else given

    plan = Plan(
        negative_prompt=options.negative_prompt,
        steps=int(choose("steps")),
        sampler=str(choose("sampler")),
        eta=options.eta,
        guidance_scale=float(choose("guidance_scale")),
        width=int(choose("width")),
        height=int(choose("height")),
        model=studio.name,
        precision=studio.precision,
        long_prompts=bool(choose("long_prompts")),
        noise_scale=checked_noise_scale(choose("noise_scale")),
        settle=checked_settle(choose("settle")),
    )
    for name, value in (("guidance", plan.guidance_scale), ("eta", plan.eta)):
        if not math.isfinite(value):
            raise UserError(f"the {name} must be a finite number, got {value}")
    check_size(plan.width, plan.height, factor)
    report_size((plan.width, plan.height), (int(usual["width"]), int(usual["height"])))
    step_rule(plan.sampler, plan.eta).levels(model.schedule, plan.steps)
    if plan.negative_prompt and plan.guidance_scale == 1:
        log.warning("the negative prompt is not used: guidance with scale 1 leads away from nothing; give a --scale")
    return plan


def checked_noise_scale(given: Any) -> float:
    """What start noise is multiplied by.

    Raises:
        UserError: it is negative, too large, or no number.
    """
    if not 0 <= float(given) <= LOUDEST:
        raise UserError(f"the scale of the start noise must lie between 0 and {LOUDEST:g}, got {given}")
    return float(given)


def checked_settle(given: Any) -> int:
    """Over how many noises pictures are settled.

    Raises:
        UserError: it is negative, or more than changes anything.
    """
    if not 0 <= int(given) <= MOST_SETTLED:
        raise UserError(f"pictures settle on the mean over 0 (not at all) to {MOST_SETTLED} noises, got {given}")
    return int(given)


def usual_settings(studio: Studio) -> dict[str, Any]:
    """What a request leaves open: as the model's YAML says, else at the size of its training, and as is usual."""
    size, factor = studio.model.image_size, studio.model.first_stage_model.factor
    height, width = (size, size) if isinstance(size, int) else size
    own = {"height": int(height) * factor, "width": int(width) * factor}
    return {**DEFAULTS, **own, **studio.model.usual, **studio.inference}


def latent_size(studio: Studio, plan: Plan) -> tuple[int, int]:
    """(height, width) of the latents of a plan's pictures."""
    factor = studio.model.first_stage_model.factor
    return plan.height // factor, plan.width // factor

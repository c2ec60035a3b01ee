"""One batch of pictures from prompts: condition, guidance, the loop, the decoder."""

from __future__ import annotations

from typing import Any

import torch
from PIL.Image import Image

from ldm.models.diffusion.noise import ImageNoise
from ldm.models.diffusion.sampling import sample, step_rule
from ldm.workflows.batches import Batch
from ldm.workflows.guide.steer import Steered, Steering
from ldm.workflows.pictures import pictures_of
from ldm.workflows.plan import Plan
from ldm.workflows.prompts import conditions
from ldm.workflows.studio import Studio
from ldm.workflows.watch import Watch


def generate(
    studio: Studio, plan: Plan, batch: Batch, watch: Watch[Any] | None = None, progress: bool = False
) -> list[Image]:
    """The pictures of one batch; see ``generate_guided``."""
    return generate_guided(studio, plan, batch, None, watch, progress)[0]


@torch.no_grad()
def generate_guided(
    studio: Studio,
    plan: Plan,
    batch: Batch,
    guide: Steered | None,
    watch: Watch[Any] | None = None,
    progress: bool = False,
) -> tuple[list[Image], Steering]:
    """The pictures of one batch, and how their guidance by attention went.

    Each picture depends on its prompt, its seed, the plan and the guidance alone.

    Raises:
        UserError: the model needs more than a prompt; or what came out is not finite, see ``ldm.workflows.pictures``.
        Cancelled: the watch does not want the rest.
    """
    model = studio.model
    factor = model.first_stage_model.factor
    shape = (model.channels, plan.height // factor, plan.width // factor)
    noise = ImageNoise(batch.seeds)
    with studio.mixed():
        guided = plan.guidance_scale != 1
        condition, uncond = conditions(model, batch.prompts, plan.negative_prompt, shape[1:], guided)
        steps = len(step_rule(plan.sampler, plan.eta).levels(model.schedule, plan.steps)) - 1
        steering = Steering() if guide is None else guide.on(model, condition, batch.prompts, steps)
        latents = sample(
            model,
            noise.draw(shape).to(model.device),
            condition,
            steps=plan.steps,
            sampler=plan.sampler,
            guidance_scale=plan.guidance_scale,
            uncond=uncond,
            eta=plan.eta,
            noise=lambda: noise.draw(shape),
            before=steering.before,
            callback=(watch or Watch()).steps(model, "sampling"),
            progress=progress,
        )
    return pictures_of(studio, latents), steering

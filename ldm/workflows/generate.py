"""One batch of pictures from prompts: condition, guidance, the loop, the decoder."""

from __future__ import annotations

from typing import Any

import torch
from PIL.Image import Image

from ldm.models.diffusion.noise import ImageNoise
from ldm.models.diffusion.sampling import sample
from ldm.workflows.batches import Batch
from ldm.workflows.pictures import pictures_of
from ldm.workflows.plan import Plan
from ldm.workflows.studio import Studio
from ldm.workflows.watch import Watch


@torch.no_grad()
def generate(
    studio: Studio, plan: Plan, batch: Batch, watch: Watch[Any] | None = None, progress: bool = False
) -> list[Image]:
    """The pictures of one batch. Each depends on its prompt, its seed and the plan alone.

    Raises:
        UserError: the model needs more than a prompt; or what came out is not finite, see ``ldm.workflows.pictures``.
        Cancelled: the watch does not want the rest.
    """
    model = studio.model
    factor = model.first_stage_model.factor
    shape = (model.channels, plan.height // factor, plan.width // factor)
    noise = ImageNoise(batch.seeds)
    with studio.mixed():
        condition = model.condition(batch.prompts, size=shape[1:])
        uncond = None if plan.guidance_scale == 1 else model.unconditional(condition, plan.negative_prompt)
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
            callback=(watch or Watch()).steps(model, "sampling"),
            progress=progress,
        )
    return pictures_of(studio, latents)

"""One batch of pictures from prompts: condition, guidance, the loop, the decoder."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor
from tqdm import tqdm

from ldm.models.diffusion.guidance import guided
from ldm.models.diffusion.loop import Draw, Level
from ldm.models.diffusion.noise import ImageNoise
from ldm.models.diffusion.sampling import drawing, sample, step_rule
from ldm.models.diffusion.settling import corrected, settled, settling_levels
from ldm.modules.corrector import Corrector
from ldm.pictures.images import centre_crop
from ldm.workflows.basis import Basis, begin
from ldm.workflows.batches import Batch
from ldm.workflows.correcting import Correction
from ldm.workflows.guide.edit import Walk, edited
from ldm.workflows.guide.reading import Edit
from ldm.workflows.guide.regions import RegionWalk
from ldm.workflows.guide.steer import Steered, Steering
from ldm.workflows.pictures import pictures_of
from ldm.workflows.plan import Plan, latent_size
from ldm.workflows.prompts import conditions
from ldm.workflows.refiner import Refiner
from ldm.workflows.studio import Studio
from ldm.workflows.watch import Watch


@dataclass(frozen=True)
class Outcome:
    """The pictures of a batch, how their guidance by attention went, and the pictures that edits began from."""

    images: list[Image]
    steering: Steering = field(default_factory=Steering)
    sources: list[Image] | None = None


def generate(
    studio: Studio, plan: Plan, batch: Batch, watch: Watch[Any] | None = None, progress: bool = False
) -> list[Image]:
    """The pictures of one batch; see ``generate_guided``."""
    return generate_guided(studio, plan, batch, None, watch, progress).images


@torch.no_grad()
def generate_guided(
    studio: Studio,
    plan: Plan,
    batch: Batch,
    guide: Steered | None,
    watch: Watch[Any] | None = None,
    progress: bool = False,
    basis: Basis | None = None,
    refiner: Refiner | None = None,
    correction: Correction | None = None,
) -> Outcome:
    """The pictures of one batch, and how their guidance by attention went.

    Each picture depends on its prompt, its seed, the plan, the guidance, its beginning and what finishes it alone.

    Raises:
        UserError: the model needs more than a prompt; or what came out is not finite, see ``ldm.workflows.pictures``.
        Cancelled: the watch does not want the rest.
    """
    model, basis = studio.model, basis or Basis()
    shape = (model.channels, *latent_size(studio, plan))
    noise = ImageNoise(batch.seeds)
    first = batch.start(shape, noise)
    given = dict(basis.given)
    if basis.noise_shape is not None:
        given["noise"] = noise.draw(basis.noise_shape)
    watch = watch or Watch()
    callback = watch.steps(model, "sampling")
    with studio.mixed():
        led = functools.partial(_led, model, plan, shape[1:], basis.away, given)
        wanted, away = led(batch.prompts)
        levels = step_rule(plan.sampler, plan.eta).levels(model.schedule, plan.steps)
        steps = len(levels) - 1
        steering = Steering() if guide is None else guide.on(model, wanted, batch.prompts, steps)
        denoiser = guided(model, plan.guidance_scale, away)
        begun = begin(basis, model, plan, first, lambda: noise.draw(shape))
        if guide is not None and guide.regions is not None:
            walk = RegionWalk(begun.x if begun.start is None else first, steps)
            denoiser = guide.regions.denoiser(model, batch.prompts, led, plan.guidance_scale, walk)
        left = 0 if refiner is None else min(refiner.left_over(steps), steps if begun.start is None else begun.start)
        latents = begun.x if begun.start == 0 else sample(
            denoiser, begun.x, wanted, steps=plan.steps, sampler=plan.sampler, eta=plan.eta,
            noise=lambda: noise.draw(shape), start=begun.start, stop=left,
            before=[*steering.before, *([] if begun.paint is None else [begun.paint])], callback=callback,
            progress=progress,
        )  # fmt: skip
        if plan.settle:

            def draw() -> Tensor:
                watch.check()
                return noise.draw(shape)

            corrector = None if correction is None else correction.corrector
            latents = _settled(model, latents, wanted, levels, draw, plan.settle, corrector, progress)
    if refiner is not None:
        latents = refiner.finish(latents, plan, batch, lambda: noise.draw(shape), callback, progress)
    if begun.paint is not None:
        latents = begun.paint.finish(latents)
    retoucher = None if correction is None else correction.retoucher
    return Outcome(basis.over_original(pictures_of(studio, latents, retoucher)), steering)


def _settled(
    model: Any, latents: Tensor, wanted: Any, levels: Sequence[Level], draw: Draw, times: int,
    corrector: Corrector | None, progress: bool,
) -> Tensor:  # fmt: skip
    """Latents settled over so many noises; if there is what corrects them, it does so in place of the last level."""
    *deep, late = settling_levels(levels)
    calls = (len(deep) + 1) * times
    with tqdm(total=calls, desc="settling", disable=not progress, leave=False) as bar:

        def next_noise() -> Tensor:
            bar.update()
            return draw()

        fresh = drawing(latents, next_noise)
        if corrector is None:
            return settled(model, latents, wanted, [*deep, late], fresh, times)
        latents = settled(model, latents, wanted, deep, fresh, times)
        return corrected(model, corrector, latents, wanted, late, fresh, times)


def _led(
    model: Any, plan: Plan, size: tuple[int, int], away: Mapping[str, Any], given: Mapping[str, Any],
    prompts: Sequence[str],
) -> tuple[Any, Any]:  # fmt: skip
    """What pictures of prompts are led to, and what away from."""
    return conditions(model, prompts, plan.negative_prompt, size, plan.guidance_scale != 1, away, **given)


@torch.no_grad()
def generate_edited(
    studio: Studio, plan: Plan, batch: Batch, edit: Edit, watch: Watch[Any] | None = None, progress: bool = False
) -> Outcome:
    """The pictures of one batch under an edit, and those that the edit began from.

    Raises:
        UserError: as ``generate_guided`` and ``edited``.
        Cancelled: the watch does not want the rest.
    """
    shape = (studio.model.channels, *latent_size(studio, plan))
    walk = Walk(
        plan.steps, plan.sampler, plan.eta, plan.guidance_scale, plan.negative_prompt, shape, plan.noise_scale, progress
    )
    if edit.photo is not None:
        edit = replace(edit, photo=centre_crop(edit.photo, plan.width, plan.height))
    callback = (watch or Watch()).steps(studio.model, "sampling")
    with studio.mixed():
        first, second = edited(studio.model, edit, batch.prompts, batch.seeds, walk, callback)
    return Outcome(pictures_of(studio, second), sources=pictures_of(studio, first))

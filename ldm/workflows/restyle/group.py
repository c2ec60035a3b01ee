"""Results that are made together: inversions, the noise to start from, the loop under the recipe, pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ldm.control import MixReport
from ldm.models.diffusion.noise import ImageNoise
from ldm.pictures.colour import keep_colour
from ldm.pictures.flat import keep_flat
from ldm.util import UserError
from ldm.workflows.inversion.cache import InversionCache
from ldm.workflows.inversion.invert import Inversion
from ldm.workflows.pictures import pictures_of
from ldm.workflows.restyle.jobs import Job
from ldm.workflows.restyle.outside import GROWTH, grown, joined
from ldm.workflows.restyle.recipe import KEEP
from ldm.workflows.restyle.setting import Setting
from ldm.workflows.restyle.start import beginning
from ldm.workflows.restyle.steady import Steady
from ldm.workflows.restyle.stylise import stylise
from ldm.workflows.watch import Watch


def groups(jobs: Sequence[Job], size: int) -> Iterator[list[Job]]:
    """Neighbours that can be made together, at most ``size`` of them."""
    group: list[Job] = []
    for job in jobs:
        if group and (len(group) == size or not group[0].goes_with(job)):
            yield group
            group = []
        group.append(job)
    if group:
        yield group


@torch.no_grad()
def restyle(
    setting: Setting,
    cache: InversionCache,
    group: Sequence[Job],
    watch: Watch[Any] | None = None,
    progress: bool = False,
    steady: Steady | None = None,
) -> list[Image.Image]:
    """The pictures of jobs that go together; with ``steady`` they are the next frames of a film.

    Raises:
        UserError: a picture has gone, memory is not enough, or the model gave no picture.
        Cancelled: the watch does not want the rest.
    """
    try:
        latents = restyled_latents(setting, cache, group, watch, progress, steady=steady)
        cache.used(picture for job in group for picture in job.pictures)  # features go before decoding takes its memory
        images = pictures_of(setting.studio, latents)
    except torch.OutOfMemoryError as error:
        height, width = group[0].content.size
        raise UserError(
            f"not enough memory for {len(group)} picture(s) of {width}x{height}: "
            "a smaller --batch, another --features or a smaller size would need less"
        ) from error
    return [finished(image, job) for image, job in zip(images, group, strict=True)]


def finished(image: Image.Image, job: Job) -> Image.Image:
    """What is left to do with a picture of the decoder: smooth places, the content's colours, what lies outside."""
    if job.recipe.keep_flat:
        image = keep_flat(image, job.content.image(), job.recipe.keep_flat)
    if job.recipe.keep_color:
        image = keep_colour(image, job.content.image())
    if job.masks is not None and job.recipe.outside == KEEP:
        image = joined(image, job.content.image(), job.masks, job.recipe.feather)
    return image


@torch.no_grad()
def restyled_latents(
    setting: Setting,
    cache: InversionCache,
    group: Sequence[Job],
    watch: Watch[Any] | None = None,
    progress: bool = False,
    report: Callable[[MixReport], None] | None = None,
    steady: Steady | None = None,
) -> Tensor:
    """The latents [B, C, h, w] of jobs that go together; ``report`` is told what a mix did, see ``ldm.control.Mix``."""
    model, recipe = setting.model, group[0].recipe
    inversions = cache.get([*(job.content for job in group), *group[0].styles])
    content, styles = Inversion.join(inversions[: len(group)]), inversions[len(group) :]
    masks = None if group[0].masks is None else torch.stack([job.masks for job in group if job.masks is not None])
    if masks is not None and recipe.outside == KEEP:
        masks = grown(masks, GROWTH * int(model.first_stage_model.factor))
    start = beginning(model.schedule, content, styles, recipe, masks)
    portion = steady.portion(content.clean) if steady and steady.share else None
    fresh = ImageNoise([recipe.seed or 0] * len(group))
    with setting.studio.mixed():
        made = stylise(
            model, start.to(setting.studio.device), content, styles, setting.context, recipe,
            masks=masks, sites=setting.sites, residuals=setting.detail,
            noise=lambda: fresh.draw(content.noise.shape[1:]), before=[portion] if portion else [], report=report,
            callback=(watch or Watch()).steps(model, "sampling"), progress=progress,
        )  # fmt: skip
    return portion.arrived(made) if portion else made

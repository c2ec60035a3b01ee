"""What pictures begin from besides their prompts and their noise: a picture, a part of one, what a model needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ldm.models.diffusion.loop import Draw
from ldm.models.diffusion.sampling import noised, step_rule
from ldm.models.diffusion.soft_mask import PaintWhere
from ldm.pictures.region import Box
from ldm.util import UserError
from ldm.workflows.inversion.cache import clean_latent
from ldm.workflows.plan import Plan
from ldm.workflows.xl_options import SCORE, SIZES

COVERED = 0.25  # a soft mask from here on hides the original: what is painted for less is hardly another picture


@dataclass(frozen=True)
class Basis:
    """What the pictures of a request begin from; with nothing in it they begin from noise alone.

    Attributes:
        image: the picture [1, 3, H, W] in [-1, 1] that gets noise and is painted over.
        strength: the share of the steps that are taken from there: 0 none, 1 all of them, from noise alone.
        mask: where something new is wanted, [1, 1, H, W] in [0, 1]; None: everywhere.
        given: what the model's condition takes of it, by the names of ``needs``.
        away: likewise, what guidance leads away from.
        noise_shape: of the noise that the condition gets for each picture; None: it gets none.
        original: what is kept where ``mask`` is 0, with the mask [h, w] at its own size.
        box: the part of ``original`` that ``image`` is of; None: all of it.
        about: what records say of it.
    """

    image: Tensor | None = None
    strength: float = 1.0
    mask: Tensor | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    away: Mapping[str, Any] = field(default_factory=dict)
    noise_shape: tuple[int, ...] | None = None
    original: tuple[Image.Image, Tensor] | None = None
    box: Box | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def of_prompts_alone(self) -> bool:
        """Whether pictures come of prompts, noise and sizes alone; at full strength nothing is left of a picture."""
        painted_over = self.mask is not None or (self.image is not None and self.strength < 1)
        return not painted_over and not self.given.keys() - {*SIZES, SCORE}

    def over_original(self, images: list[Image.Image]) -> list[Image.Image]:
        """Pictures with every pixel of the original that the mask leaves alone, at the original's size."""
        if self.original is None:
            return images
        below, mask = self.original
        alpha = Image.fromarray((mask / COVERED * 255).clamp(0, 255).round().to(torch.uint8).numpy())
        return [Image.composite(self._in_place(one, below), below, alpha) for one in images]

    def _in_place(self, image: Image.Image, below: Image.Image) -> Image.Image:
        """A picture at the place and of the size of the part that it was made of."""
        left, top, right, bottom = self.box or (0, 0, *below.size)
        size = (right - left, bottom - top)
        fitted = image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)
        whole = below.copy()
        whole.paste(fitted, (left, top))
        return whole


@dataclass(frozen=True)
class Beginning:
    """Where the walk of a batch begins.

    Attributes:
        x: noise, times the plan's scale of it where there is no picture, or with ``start`` a latent [B, C, h, w] at the
            level of the last ``start`` steps.
        paint: what keeps a part of the picture on the way.
    """

    x: Tensor
    start: int | None = None
    paint: PaintWhere | None = None


def begin(basis: Basis, model: Any, plan: Plan, noise: Tensor, draw: Draw) -> Beginning:
    """The beginning of a batch whose start noise is ``noise`` [B, C, h, w].

    Raises:
        UserError: the strength is not between 0 and 1.
    """
    noise = noise.to(model.device)
    keeps = basis.mask is not None and "mask" not in basis.given
    if basis.image is None or (basis.strength == 1 and not keeps):
        return Beginning(plan.noise_scale * noise)
    total = len(step_rule(plan.sampler).levels(model.schedule, plan.steps)) - 1
    count = steps_of(basis.strength, total)
    latent = clean_latent(model, basis.image)
    paint = None
    if keeps:
        assert basis.mask is not None
        mask = latent_mask(basis.mask, (noise.shape[-2], noise.shape[-1])).to(noise)
        paint = PaintWhere(mask, latent, lambda: draw().to(noise), total - count, count)
    if count == total:
        return Beginning(noise, None, paint)
    if count == 0:
        return Beginning(latent.expand_as(noise), 0)
    x = noised(model, latent, noise, steps=plan.steps, start=count, sampler=plan.sampler)
    return Beginning(x, count, paint)


def steps_of(strength: float, total: int) -> int:
    """How many of ``total`` steps a strength comes to: rounded down, but at least one where it is above 0.

    Raises:
        UserError: it is not between 0 and 1.
    """
    check_strength(strength)
    return 0 if strength == 0 else max(1, int(strength * total + 1e-6))


def check_strength(strength: float) -> None:
    """Raises UserError when a strength is not between 0 and 1."""
    if not 0 <= strength <= 1:
        raise UserError(
            f"--strength must lie between 0 (the picture as it is) and 1 (a new one), got {strength}; 0.75 is usual"
        )


def latent_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask [1, 1, H, W] at the size (h, w) of latents: a cell is painted as much as any of its pixels."""
    return F.adaptive_max_pool2d(mask, size)

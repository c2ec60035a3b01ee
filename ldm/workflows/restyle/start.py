"""The noise that restyling starts from: the content's, with the statistics of the styles'."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ldm.control.detail import high_pass
from ldm.control.shares import check_masks, normalised, resized
from ldm.models.diffusion.loop import Schedule
from ldm.pictures.flat import flatness
from ldm.util import UserError
from ldm.workflows.inversion.inverted import Inversion
from ldm.workflows.restyle.recipe import DEVIATION, Recipe
from ldm.workflows.restyle.steps import walk, way_of

FLAT, GRAINED = 0.08, 0.25  # local deviation of clean latents, whose own is about 1: up to the one, from the other on
AROUND = 3  # cells in each direction, over which it is taken
LOW = 0.3  # the radius below which frequencies are low, where 1 is the highest of an axis


def adain(content: Tensor, style: Tensor, deviation_share: float | Tensor = DEVIATION) -> Tensor:
    """``content`` [B, C, h, w] with the mean and deviation of each channel of ``style`` [B or 1, C, h', w'].

    Chung et al. 2024, equation 7 (Huang & Belongie 2017, equation 8), for each picture by itself and without epsilon.

    Args:
        deviation_share: how far the deviation goes to the style's, in logarithms; with 0 the mean alone is taken over.
            A number, or one for each place, [B, 1, h, w].
    """
    deviation, mean = torch.std_mean(content, dim=(2, 3), keepdim=True)
    style_deviation, style_mean = torch.std_mean(style, dim=(2, 3), keepdim=True)
    if isinstance(deviation_share, (int, float)) and deviation_share == 1:
        return (content - mean) / deviation * style_deviation + style_mean  # the reference's, to the last bit
    return (content - mean) * (style_deviation / deviation) ** deviation_share + style_mean


def start_noise(
    content: Tensor,
    styles: Sequence[Tensor],
    masks: Tensor | None = None,
    deviation_share: float | Tensor = DEVIATION,
) -> Tensor:
    """Where sampling starts: the content's noise [B, C, h, w] with the statistics of the styles' noise.

    With masks [styles, H, W] or [B, styles, H, W] the AdaIN of each style is weighted by its mask, normalised where
    masks overlap, and outside of them the content's noise stays. Without masks styles count equally.
    ``deviation_share`` is that of ``adain``.

    Raises:
        UserError: no style, masks that do not fit, or a picture of one cell, which has no deviation.
    """
    if not styles:
        raise UserError("AdaIN needs the noise of at least one style")
    if any(noise[0, 0].numel() < 2 for noise in (content, *styles)):
        raise UserError("AdaIN needs more than one latent cell: larger pictures, or --without_init_adain")
    moved = torch.stack([adain(content, style, deviation_share) for style in styles], dim=1)
    if masks is None:
        return moved.mean(dim=1)
    height, width = content.shape[-2:]
    raw = resized(check_masks(masks, len(styles)), (height, width)).to(content.device)
    w, coverage = normalised(raw)
    return (w[:, :, None] * moved).sum(dim=1) * coverage[:, None] + content * (1 - coverage[:, None])


def share_by_place(clean: Tensor, elsewhere: float, flat: float) -> Tensor:
    """How far AdaIN's deviation goes at each place of a content, whose latents are ``clean``: [B, 1, h, w].

    Where a content is smooth, what it is inverted to is smoother than noise. A deviation that is raised there comes
    back as cracks in a clear sky. So the share is ``flat`` there, ``elsewhere`` where there is grain, and between them
    in between; it changes softly. The noise itself tells less well: beside a tower it has grain that the sky has not.

    Args:
        clean: [B, C, h, w], scaled as a model's latents are, to a deviation of about 1.
    """
    return elsewhere + (flat - elsewhere) * flatness(clean, FLAT, GRAINED, AROUND)


def damped(noise: Tensor, factor: float) -> Tensor:
    """Noise [B, C, h, w] with its low frequencies multiplied by ``factor``; their mean, the tone, stays.

    StyleSSP (Xu et al. 2025, arXiv 2501.11319, section 3.2): what is left of a content's layout in its noise counts
    more where the low frequencies are weaker.
    """
    if factor == 1:
        return noise
    mean = noise.mean(dim=(2, 3), keepdim=True)
    high = high_pass(noise - mean, LOW)
    return mean + high + factor * (noise - mean - high)


def beginning(
    schedule: Schedule, content: Inversion, styles: Sequence[Inversion], recipe: Recipe, masks: Tensor | None = None
) -> Tensor:
    """Where the sampling of a recipe starts, [B, C, h, w]; [B, 2C, h, w] where its steps need two latents.

    Raises:
        UserError: see ``start_noise``.
    """
    way, levels = way_of(schedule, recipe), walk(schedule, recipe)
    end = schedule.upwards(recipe.ddim_inv_steps)[-1]
    own, *others = (way.start(inversion, levels[0], end) for inversion in (content, *styles))
    own = damped(own, recipe.low_frequencies)
    if recipe.without_init_adain:
        return own
    share = DEVIATION if recipe.adain_deviation is None else recipe.adain_deviation
    if recipe.adain_flat is None:
        return start_noise(own, others, masks, share)
    return start_noise(own, others, masks, share_by_place(content.clean.to(own), share, recipe.adain_flat))

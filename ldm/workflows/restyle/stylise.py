"""StyleID on tensors: the noise of a content to a stylised latent (Chung et al. 2024), with one style or several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ldm.control import (
    Detail,
    FeatureSource,
    FeatureStore,
    Inject,
    Mix,
    MixReport,
    Rows,
    Save,
    SaveResidual,
    Sites,
    attention_mode,
)
from ldm.control.inject import Gamma
from ldm.control.seam import Mode
from ldm.control.shares import check_masks, normalised, resized
from ldm.models.diffusion.guidance import expand_condition
from ldm.models.diffusion.loop import Draw, Level, Schedule, Snapshot, last_levels
from ldm.models.diffusion.sampling import sample
from ldm.modules.diffusionmodules.levels import current_level
from ldm.util import UserError
from ldm.workflows.inversion.invert import Inversion, unet_of
from ldm.workflows.restyle.layers import attention_sites, detail_sites
from ldm.workflows.restyle.recipe import Recipe


def adain(content: Tensor, style: Tensor) -> Tensor:
    """``content`` [B, C, h, w] with the mean and deviation of each channel of ``style`` [B or 1, C, h', w'].

    Chung et al. 2024, equation 7 (Huang & Belongie 2017, equation 8), for each picture by itself and without epsilon.
    """
    deviation, mean = torch.std_mean(content, dim=(2, 3), keepdim=True)
    style_deviation, style_mean = torch.std_mean(style, dim=(2, 3), keepdim=True)
    return (content - mean) / deviation * style_deviation + style_mean


def start_noise(content: Tensor, styles: Sequence[Tensor], masks: Tensor | None = None) -> Tensor:
    """Where sampling starts: the content's noise [B, C, h, w] with the statistics of the styles' noise.

    With masks [styles, H, W] or [B, styles, H, W] the AdaIN of each style is weighted by its mask, normalised where
    masks overlap, and outside of them the content's noise stays. Without masks styles count equally.

    Raises:
        UserError: no style, or masks that do not fit.
    """
    if not styles:
        raise UserError("AdaIN needs the noise of at least one style")
    moved = torch.stack([adain(content, style) for style in styles], dim=1)
    if masks is None:
        return moved.mean(dim=1)
    height, width = content.shape[-2:]
    raw = resized(check_masks(masks, len(styles)), (height, width)).to(content.device)
    w, coverage = normalised(raw)
    return (w[:, :, None] * moved).sum(dim=1) * coverage[:, None] + content * (1 - coverage[:, None])


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


def gamma_by_level(values: Sequence[float], levels: Sequence[Level]) -> dict[int, float]:
    """A gamma for each level's index: the values spread evenly in the order of sampling, straight in between.

    Raises:
        UserError: no value at all.
    """
    if not values:
        raise UserError("a schedule of gamma needs at least one value, such as 0.9,0.5")
    places = np.linspace(0, len(values) - 1, len(levels))
    gammas = np.interp(places, np.arange(len(values)), np.asarray(values, dtype=np.float64))
    return {level.index: float(gamma) for level, gamma in zip(levels, gammas, strict=True)}


@dataclass(frozen=True)
class Beside:
    """A denoiser that stylises the rows it is given: features come from stores, or from rows that run beside them.

    Attributes:
        modes: what happens at which sites, on the rows that were given.
        beside: inversions whose latents of the level run in the same batch.
        before: inversions whose latents, of another size, run in a call of their own first; their stores are filled.
        context: the one context [1, N, D] of all rows.
    """

    model: Any
    context: Any
    modes: dict[Sites, Mode]
    beside: list[Inversion]
    before: list[tuple[Inversion, FeatureStore]]

    @property
    def schedule(self) -> Schedule:
        return self.model.schedule

    @property
    def device(self) -> torch.device:
        return self.model.device

    def predict(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        """The stylising network's output for latents x [B, C, h, w] at one level, which tells t [B].

        Raises:
            UserError: it was not said which level that is, or an inversion did not visit it.
        """
        for inversion, store in self.before:
            store.clear()
            keep: dict[Sites, Mode] = {
                where: SaveResidual(store) if where.seam == "residual" else Save(store) for where in self.modes
            }
            self._run([self._seen(inversion)], t, keep)
        return self._run([x, *map(self._seen, self.beside)], t, self.modes)[: x.shape[0]]

    def _seen(self, inversion: Inversion) -> Tensor:
        """The latent of an inversion at this level, as the network takes it."""
        level = current_level()
        if level is None:
            raise UserError("latents run beside others along a walk only, which says at which level they are")
        return self.schedule.enter(inversion.seen(level), level)

    def _run(self, latents: list[Tensor], t: Tensor, modes: dict[Sites, Mode]) -> Tensor:
        batch = torch.cat([latent.to(t.device) for latent in latents])
        with attention_mode(unet_of(self.model), modes):
            return self.model.predict(batch, t[:1].expand(len(batch)), expand_condition(self.context, len(batch)))


@torch.no_grad()
def stylise(
    model: Any,
    start: Tensor,
    content: Inversion,
    styles: Sequence[Inversion],
    context: Any,
    recipe: Recipe | None = None,
    *,
    masks: Tensor | None = None,
    sites: Sites | None = None,
    residuals: Sites | None = None,
    noise: Draw | None = None,
    report: Callable[[MixReport], None] | None = None,
    callback: Callable[[Snapshot], None] | None = None,
    progress: bool = False,
) -> Tensor:
    """The stylised latents [B, C, h, w], float32, that DDIM makes of ``start`` while attention takes from the styles.

    Features of an inversion come from its store, or, if it has none, from its latents, which run beside the batch.
    One style without a mask is StyleID; several, or a mask, are mixed with the content (see ``ldm.control.Mix``).

    Args:
        start: ``start_noise(...)``, or the content's noise.
        content: of B pictures, or of one for all rows. Stores need q (q, k and v to mix; residuals for detail).
        styles: of one picture each; stores need k and v. Latents may have another size than the content's.
        context: of the empty prompt [1, N, D]; there is no guidance.
        recipe: how; None: as is usual, which is StyleID's for one style, and adds detail where styles are mixed.
        masks: [styles, H, W], or [B, styles, H, W] in [0, 1], of any size.
        sites: the attention that changes, in place of the recipe's layers.
        residuals: where detail is added; None: the last residual block of each block of the decoder's later half.
        noise: where the fresh noise [B, C, h, w] of DDIM with an eta comes from.
        report: see ``ldm.control.Mix``.

    Raises:
        UserError: values, sites or masks that do not fit, or features that were not kept.
    """
    recipe = (recipe or Recipe()).settled(mixed=is_mixed(styles, masks))
    levels = executed_levels(model.schedule, recipe.save_feat_steps, recipe.start_step)
    beside: list[Inversion] = []
    before: list[tuple[Inversion, FeatureStore]] = []
    sources = _sources(start, [content, *styles], beside, before)
    rows = Rows(0, start.shape[0]) if beside else None
    modes: dict[Sites, Mode] = {}
    if not recipe.without_attn_injection:
        where = sites or attention_sites(model, recipe.attn_layer)
        modes[where] = _injection(recipe, sources, masks, levels, rows, report)
    if recipe.detail:
        modes[residuals or detail_sites(model)] = Detail(sources[0], recipe.detail, rows=rows)
    denoiser = Beside(model, context, modes, beside if modes else [], before if modes else [])
    return sample(
        denoiser, start, context, steps=recipe.save_feat_steps, start=len(levels), eta=recipe.ddim_eta, noise=noise,
        callback=callback, progress=progress,
    )  # fmt: skip


def is_mixed(styles: Sequence[Any], masks: Tensor | None) -> bool:
    """Whether attention is shared between the content and these styles; otherwise it is StyleID's injection."""
    return masks is not None or len(styles) > 1


def _injection(
    recipe: Recipe,
    sources: Sequence[FeatureSource],
    masks: Tensor | None,
    levels: Sequence[Level],
    rows: Rows | None,
    report: Callable[[MixReport], None] | None,
) -> Mode:
    """What attention does: the content with the style's keys and values, or shared between all sources."""
    content, *styles = sources
    gamma, T, pi, mix = recipe.gamma, recipe.T, recipe.pi, recipe.mix
    assert gamma is not None and T is not None and pi is not None and mix is not None  # the recipe is settled
    gammas: Gamma = gamma if recipe.gammas is None else gamma_by_level(recipe.gammas, levels)
    if is_mixed(styles, masks):
        return Mix(content, styles, masks, pi, mix, gammas, T, recipe.sharpen, rows=rows, report=report)
    return Inject(content, _only(styles), gammas, T, rows=rows)


def _sources(
    start: Tensor,
    inversions: Sequence[Inversion],
    beside: list[Inversion],
    before: list[tuple[Inversion, FeatureStore]],
) -> list[FeatureSource]:
    """A source for each inversion; those without a store are added to ``beside``, or ``before`` for another size."""
    sources: list[FeatureSource] = []
    row = start.shape[0]
    for inversion in inversions:
        if inversion.store is not None:
            sources.append(inversion.store)
        elif inversion.noise.shape[1:] == start.shape[1:]:
            beside.append(inversion)
            sources.append(Rows(row, row + inversion.noise.shape[0]))
            row += inversion.noise.shape[0]
        else:
            store = FeatureStore(dtype=None)
            before.append((inversion, store))
            sources.append(store)
    return sources


def _only(styles: Sequence[FeatureSource]) -> FeatureSource:
    if len(styles) != 1:
        raise UserError("a style is needed to take keys and values from")
    return styles[0]

"""StyleID on tensors: the noise of a content to a stylised latent (Chung et al. 2024), with one style or several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ldm.control import (
    Detail,
    FeatureSource,
    FeatureStore,
    Mix,
    MixReport,
    Rows,
    Save,
    SaveResidual,
    Sites,
    attention_mode,
)
from ldm.control.distil import StyleLoss
from ldm.control.seam import Mode
from ldm.models.diffusion.guidance import expand_condition
from ldm.models.diffusion.loop import Before, Draw, Level, Schedule, Snapshot, estimator, run
from ldm.models.diffusion.sampling import drawing
from ldm.models.diffusion.settling import settled, settling_levels
from ldm.modules.diffusionmodules.levels import current_level
from ldm.util import UserError
from ldm.workflows.inversion.empty_prompt import context_for
from ldm.workflows.inversion.invert import Inversion, unet_of
from ldm.workflows.restyle.distil import KEEP_CONTENT, distillation
from ldm.workflows.restyle.gamma import gamma_by_level
from ldm.workflows.restyle.injection import injection
from ldm.workflows.restyle.layers import changed_layers
from ldm.workflows.restyle.outside import held, hold, open_cells
from ldm.workflows.restyle.recipe import KEEP, Recipe
from ldm.workflows.restyle.start import start_noise
from ldm.workflows.restyle.steps import executed_timesteps, walk, way_of

__all__ = ["Beside", "executed_timesteps", "start_noise", "stylise"]


@dataclass(frozen=True)
class Beside:
    """A denoiser that stylises the rows it is given: features come from stores, or from rows that run beside them.

    Attributes:
        modes: what happens at which sites, on the rows that were given.
        beside: inversions whose latents of the level run in the same batch.
        before: inversions whose latents, of another size, run in a call of their own first; their stores are filled.
        context: of all rows: a condition [1, N, D], or an ``EmptyPrompt``.
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
        context = expand_condition(context_for(self.context, batch), len(batch))
        with attention_mode(unet_of(self.model), modes):
            return self.model.predict(batch, t[:1].expand(len(batch)), context)


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
    before: Sequence[Before] = (),
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
        context: of the empty prompt [1, N, D], or an ``EmptyPrompt``; there is no guidance.
        recipe: how; None: as is usual, which is StyleID's for one style, and adds detail where styles are mixed.
        masks: [styles, H, W], or [B, styles, H, W] in [0, 1], of any size.
        sites, residuals: the attention that changes, and where detail is added, in place of the recipe's layers.
        noise, before, report: fresh noise [B, C, h, w], to settle and for eta; as of ``run``; see ``ldm.control.Mix``.

    Raises:
        UserError: values, sites or masks that do not fit, or features that were not kept.
    """
    how = (recipe or Recipe()).settled(mixed := masks is not None or len(styles) > 1)
    if not styles and not how.without_attn_injection:
        raise UserError("a style is needed to take keys and values from")
    (source, *others), beside, first = _sources(start, [content, *styles])
    rows = Rows(0, start.shape[0]) if beside else None
    way, levels = way_of(model.schedule, how), walk(model.schedule, how)
    where = None if how.without_attn_injection else sites or changed_layers(model, how.attn_layer).attention
    modes: dict[Sites, Mode] = {}
    if where is not None:
        gammas = how.gamma if how.gamma_schedule is None else gamma_by_level(how.gamma_schedule, levels[:-1])
        mix = partial(Mix, source, others, masks, how.pi, how.mix, gammas, how.T, how.sharpen, report=report)
        modes[where] = mix(rows=rows) if mixed else injection(how, source, others[0], gammas, rows)
    if how.detail:
        modes[residuals or changed_layers(model).residual] = Detail(source, how.detail, rows=rows)
    denoiser = Beside(model, context, modes, beside if modes else [], first if modes else [])
    cells = open_cells(masks, start) if masks is not None and how.outside == KEEP else None
    changes = [*before, *([] if cells is None else [hold(content, cells, way)])]
    if how.distill and where is not None:
        loss = StyleLoss(source, others[0], where, KEEP_CONTENT, rows)
        changes.append(distillation(replace(denoiser, modes={where: loss}), loss, how.distill, way.asks(levels[:-1])))
    rule = way.down(levels[0], model.schedule.upwards(how.save_feat_steps), how.ddim_eta)
    denoise, draw = estimator(denoiser, context_for(context, start)), drawing(start, noise)
    state = run(rule, levels, start, denoise, draw, before=changes, callback=callback, progress=progress)
    made = _at_rest(model, state[:, : content.noise.shape[1]], context, levels, noise, how.settle)
    return made if cells is None else held(made, content.clean, cells)


def _at_rest(model: Any, made: Tensor, context: Any, levels: Sequence[Level], noise: Draw | None, times: int) -> Tensor:
    """Latents that a walk has made, settled at the lower level alone: the upper one would take what the styles gave."""
    if not times:
        return made
    draw = drawing(made, noise)
    return settled(model, made, context_for(context, made), settling_levels(levels)[1:], draw, times)


def _sources(
    start: Tensor, inversions: Sequence[Inversion]
) -> tuple[list[FeatureSource], list[Inversion], list[tuple[Inversion, FeatureStore]]]:
    """A source for each inversion; then those without a store, which run beside it, or, in another size, before."""
    sources, beside, before = list[FeatureSource](), list[Inversion](), list[tuple[Inversion, FeatureStore]]()
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
    return sources, beside, before

"""A latent to its noise by DDIM inversion, keeping what a later run needs: latents on the way, or features."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ldm.control import FeatureStore, Rows, Save, SaveResidual, Sites, attention_mode
from ldm.control.seam import Mode
from ldm.models.diffusion.guidance import expand_condition, guided
from ldm.models.diffusion.loop import Snapshot, estimator, run
from ldm.models.diffusion.samplers.ddim import no_noise
from ldm.workflows.inversion.inverted import Inversion
from ldm.workflows.inversion.ways import Way

__all__ = ["Inversion", "invert_with_features", "unet_of"]


def unet_of(model: Any) -> nn.Module:
    """The UNet of a latent diffusion model."""
    return model.model.diffusion_model


@torch.no_grad()
def invert_with_features(
    model: Any,
    latents: Tensor,
    context: Any,
    *,
    steps: int = 50,
    sites: Sites | None = None,
    what: str | Sequence[str] = "qkv",
    detail: Sites | None = None,
    timesteps: Collection[float] | None = None,
    dtype: torch.dtype | None = torch.float16,
    device: torch.device | str | None = None,
    way: Way | None = None,
    away: Any = None,
    scale: float = 1.0,
    callback: Callable[[Snapshot], None] | None = None,
    progress: bool = False,
) -> Inversion:
    """Invert latents [B, C, h, w] under one context [1, N, D], and keep features of what the network did.

    Args:
        sites, what: attention to keep ("q" of a content, "kv" of a style, "qkv"); None keeps none.
        detail: residual sites to keep.
        timesteps: keep features only at these, for example those that ``executed_timesteps`` gives.
        dtype, device: what features are kept in, and where; None as they come.
        way: None is DDIM's.
        away, scale: a context, as long as the other, that guidance of this scale leads away from.
        callback: gets a ``Snapshot`` after each step.

    Raises:
        UserError: the number of steps does not fit the schedule.
    """
    way = way or Way()
    both = away is not None and scale != 1
    rows = Rows(len(latents), 2 * len(latents)) if both else None
    store = FeatureStore(dtype, device)
    modes: dict[Sites, Mode] = {}
    if sites is not None:
        modes[sites] = Save(store, what, timesteps, rows=rows)
    if detail is not None:
        modes[detail] = SaveResidual(store, timesteps, rows)
    upwards = model.schedule.upwards(steps)
    arrivals = {here.index: there.index for here, there in itertools.pairwise(upwards)}
    states = {upwards[0].index: way.begin(latents)}

    def keep(step: Snapshot) -> None:
        states[arrivals[step.level.index]] = step.x
        if callback is not None:
            callback(step)

    denoise = estimator(guided(model, scale, away), expand_condition(context, len(latents)))
    with attention_mode(unet_of(model), modes):
        run(way.up(), upwards, states[upwards[0].index], denoise, no_noise, callback=keep, progress=progress,
            label="inverting")  # fmt: skip
    told = {level.index: level.told for level in upwards[:-1]}
    return _inversion(states, told, upwards[-1].index, latents.shape[1], store if modes else None)


def _inversion(
    states: dict[int, Tensor], told: dict[int, float], end: int, channels: int, store: FeatureStore | None
) -> Inversion:
    """What states [B, channels or twice as many, h, w] by index say; the one at ``end`` is the noise."""
    visited = {index: states[index][:, :channels] for index in told}
    partners = {index: states[index][:, channels:] for index in told if states[index].shape[1] > channels}
    return Inversion(visited, told, states[end][:, :channels], store, partners)

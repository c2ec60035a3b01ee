"""Latents that a walk has arrived at, drawn towards the mean of what the network expects of them with fresh noise.

A sampler's chance errors differ from noise to noise, so that a mean has less of them. Of what a prompt
leaves open, the latent itself keeps what it has: fresh noise covers only a part of it. Stochastic sampling that noises
a finished latent again (Xu et al. 2023, "Restart Sampling") goes on with one noise; here several are asked about and
none is walked down, since the network's expectation is already a mean over pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ldm.models.diffusion.guidance import expand_condition
from ldm.models.diffusion.loop import Denoiser, Draw, Level, estimator, last_levels
from ldm.modules.corrector import Corrector, holding

SHARES = (0.6, 0.3)  # of a walk's steps, left at the levels to which a latent is noised, one after the other


def settling_levels(levels: Sequence[Level]) -> list[Level]:
    """Those of a walk's levels to which what it has arrived at is noised, the noisiest first."""
    total = len(levels) - 1
    return [last_levels(levels, max(1, int(share * total)))[0] for share in SHARES]


@torch.no_grad()
def settled(denoiser: Denoiser, x0: Tensor, cond: Any, levels: Sequence[Level], draw: Draw, times: int) -> Tensor:
    """``x0`` [B, C, h, w] half and half with the mean that is expected of it, at each of ``levels`` in turn.

    Args:
        denoiser: without guidance, which leads away from the mean.
        cond: the condition, of B rows or 1.
        draw: gives fresh standard normal noise [B, C, h, w].
        times: over how many noises the mean is taken; that many calls of the network a level.
    """
    denoise = estimator(denoiser, expand_condition(cond, x0.shape[0]))
    for level in levels:
        expected = torch.zeros_like(x0)
        for _ in range(times):
            expected += denoise(level.noised(x0, draw()), level).x0 / times
        x0 = (x0 + expected) / 2
    return x0


@torch.no_grad()
def corrected(model: Any, corrector: Corrector, x0: Tensor, cond: Any, level: Level, draw: Draw, times: int) -> Tensor:
    """What is expected of a settled ``x0`` [B, C, h, w], without what is regularly wrong with it: a mean over noises.

    Args:
        model: the one whose errors the corrector has learned.
        level: the last one to settle at; the others as ``settled``'s.
    """
    denoise = estimator(model, expand_condition(cond, x0.shape[0]))
    total = torch.zeros_like(x0)
    with holding(model.model.diffusion_model) as held:
        for _ in range(times):
            expected = denoise(level.noised(x0, draw()), level).x0
            total += corrector.corrected(x0, expected, held)
    return total / times

"""Attention distillation: before each step the latent is moved to where its attention gives what the style's would."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ldm.control.distil import StyleLoss
from ldm.control.energy import AllSeen
from ldm.models.diffusion.loop import Before, Level, ask
from ldm.models.diffusion.steering import frozen
from ldm.workflows.inversion.invert import unet_of

KEEP_CONTENT = 0.25  # weight of the content's queries in the loss (the paper's)
RATE = 0.02  # of Adam, for latents with a deviation of about 1


def distillation(denoiser: Any, loss: StyleLoss, times: int, asked: Sequence[Level]) -> Before:
    """A change before each step: ``times`` steps of Adam on the latent [B, C, h, w], down the loss.

    Args:
        denoiser: a model whose attention gathers the loss.
        asked: the levels at which features of content and style are known.
    """

    known = {level.index for level in asked}

    def change(x: Tensor, level: Level) -> Tensor:
        if level.index not in known:
            return x
        with torch.enable_grad(), frozen(unet_of(denoiser.model)):
            moved = x.detach().clone().requires_grad_()
            optimiser = torch.optim.Adam([moved], lr=RATE)
            for _ in range(times):
                optimiser.zero_grad()
                with contextlib.suppress(AllSeen):
                    ask(denoiser, moved, level, denoiser.context)
                (len(x) * loss.taken()).backward()  # the sum over pictures, each by itself
                optimiser.step()
        return moved.detach()

    return change

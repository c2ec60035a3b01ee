"""Training against what goes wrong in sampling and in inversion, which the usual loss does not see.

Sources: Ning et al. 2023 (a sampler's latents are not those of training), Mokady et al. 2023 (errors of inversion).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ldm.models.diffusion.condition import Condition
from ldm.models.diffusion.invertible import invertible_loss, square_across_scales
from ldm.util import ConfigError, UserError

LATENT = "latent"  # a batch's key of latents that the model drew of its prompts, beside what the pictures should be


@dataclass(frozen=True)
class SamplerErrors:
    """What training does about them.

    Attributes:
        inversion_weight: of the error of DDIM inversion in the loss of batches without any prompt; 0: none.
        inversion_stride: timesteps of the inversion's step; 20: that of 50 steps.
        drawn_weight: of ``correcting_loss``, the loss of batches that have what the model drew itself.
        drawn_below: the timestep below which what it drew is noised.
    """

    inversion_weight: float = 0.0
    inversion_stride: int = 20
    drawn_weight: float = 0.5
    drawn_below: int = 600

    def check(self, timesteps: int) -> None:
        """Raises ConfigError: ``drawn_below`` is no timestep of a model that has so many."""
        if not 1 < self.drawn_below <= timesteps:
            raise ConfigError(f"drawn_below must be 2 to {timesteps}, the model's timesteps, got {self.drawn_below}")


def loss_of_errors(
    model: Any, batch: Mapping[str, Any], options: SamplerErrors
) -> tuple[Tensor, dict[str, Tensor]] | None:
    """The loss of a training batch of a LatentDiffusion that is for them, and its parts; None for other batches.

    Raises:
        UserError: drawn latents of another shape than the pictures'.
    """
    if LATENT in batch:
        x_start, cond = model.get_input(batch)
        drawn = batch[LATENT].to(x_start)
        if drawn.shape != x_start.shape:
            shapes = f"{list(drawn.shape[1:])} where the pictures' are {list(x_start.shape[1:])}"
            raise UserError(f"the latents that were drawn are {shapes}: they are of another model or size")
        return correcting_loss(model, drawn, x_start, cond, weight=options.drawn_weight, below=options.drawn_below)
    if options.inversion_weight > 0 and not any(batch[model.cond_stage_key]):
        weight, stride = options.inversion_weight, options.inversion_stride
        return invertible_loss(model, *model.get_input(batch), weight=weight, stride=stride)
    return None


def correcting_loss(
    model: Any, drawn: Tensor, x_start: Tensor, cond: Condition, *, weight: float, below: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """How far what a model expects of its own drawings is from what it should have drawn, and the parts for the log.

    In the usual training a latent with little noise has the right colours in it, so that a network learns to trust
    them. A sampler's have not: what it got wrong at one level is handed down to the next. Here the network sees what
    it drew, ``drawn`` [B, C, h, w], with noise of timesteps 1 to ``below``, and is to say ``x_start`` [B, C, h, w]
    under the same condition. The error is that of x0, a mean over scales, since shades are off over wide areas.
    """
    t = torch.randint(1, below, (x_start.shape[0],), device=x_start.device)
    noise = torch.randn(x_start.shape, dtype=x_start.dtype, device=x_start.device)
    x = model.q_sample(drawn, t, noise)
    difference = model.schedule.to_x0(model.apply_model(x, t, cond).float(), x, t) - x_start
    loss = weight * square_across_scales(difference)
    parts = {"train/drawn_error": difference.square().mean(), "train/loss": loss}
    return loss, {name: value.detach() for name, value in parts.items()}

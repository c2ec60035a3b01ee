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

DRAWN = "drawn"  # a batch's key of latents that the model drew, beside the pictures that they should have been
NOISED_BELOW = 600  # timestep: above it a latent shows little of what was drawn


@dataclass(frozen=True)
class SamplerErrors:
    """What training does about them.

    Attributes:
        inversion_weight: of the error of DDIM inversion in the loss of batches without any prompt; 0: none.
        inversion_stride: timesteps of the inversion's step; 20: that of 50 steps.
        drawn_weight: of ``correcting_loss``, the loss of batches that have what the model drew itself.
        drawn_below: what it drew is noised to timesteps under this one; None: 600, or all that there are.
    """

    inversion_weight: float = 0.0
    inversion_stride: int = 20
    drawn_weight: float = 0.5
    drawn_below: int | None = None

    def check(self, timesteps: int) -> None:
        """Refuse what does not fit a model of so many timesteps.

        Raises:
            ConfigError: it says which value, and what it may be.
        """
        for name in ("inversion_weight", "drawn_weight"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.inversion_weight > 0 and not 1 <= self.inversion_stride < timesteps:
            raise ConfigError(f"inversion_stride must be 1 to {timesteps - 1}, got {self.inversion_stride}")
        if self.drawn_below is not None and not 1 < self.drawn_below <= timesteps:
            raise ConfigError(f"drawn_below must be 2 to {timesteps}, the model's timesteps, got {self.drawn_below}")


def loss_of_errors(
    model: Any, batch: Mapping[str, Any], options: SamplerErrors
) -> tuple[Tensor, dict[str, Tensor]] | None:
    """The loss of a training batch of a LatentDiffusion that is for them, and its parts; None for other batches.

    Raises:
        UserError: drawn latents of another shape than the pictures'.
    """
    if DRAWN in batch:
        x_start, cond = model.get_input(batch)
        drawn = batch[DRAWN].to(x_start)
        if drawn.shape != x_start.shape:
            shapes = f"{list(drawn.shape[1:])} where the pictures' are {list(x_start.shape[1:])}"
            raise UserError(f"the latents that were drawn are {shapes}: they are of another model or size")
        below = options.drawn_below or min(NOISED_BELOW, model.num_timesteps)
        return correcting_loss(model, drawn, x_start, cond, weight=options.drawn_weight, below=below)
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
    it drew, ``drawn`` [B, C, h, w], with noise of timesteps 1 (the lowest that DDIM asks about) to ``below`` - 1, and
    is to say ``x_start`` [B, C, h, w] under a sentence for it. The error is that of x0, a mean over scales, since
    shades are off over wide areas; weights, masks and ranges of timesteps of the usual loss do not apply to it.
    """
    t = torch.randint(1, below, (x_start.shape[0],), device=x_start.device)
    noise = torch.randn(x_start.shape, dtype=x_start.dtype, device=x_start.device)
    x = model.q_sample(drawn, t, noise)
    difference = model.schedule.to_x0(model.apply_model(x, t, cond).float(), x, t) - x_start
    loss = weight * square_across_scales(difference)
    parts = {"train/drawn_error": difference.square().mean(), "train/loss": loss}
    return loss, {name: value.detach() for name, value in parts.items()}

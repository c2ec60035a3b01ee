"""Training a network whose DDIM inversion leads back to where it started."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.models.diffusion.condition import Condition


def invertible_loss(
    model: Any, x_start: Tensor, cond: Condition, *, weight: float, stride: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """The usual loss of clean latents [B, C, h, w] at random timesteps, and what an inversion step there gets wrong.

    DDIM inversion takes the noise that the network sees at the lower of two timesteps for that at the upper one. Their
    difference is all of its error, so it is driven to zero on the latents that the inversion itself reaches,
    ``stride`` timesteps up. ``model`` is a DDPM; ``weight`` is that of the error beside the usual loss.
    """
    t = torch.randint(0, model.num_timesteps - stride, (x_start.shape[0],), device=x_start.device)
    noise = torch.randn(x_start.shape, dtype=x_start.dtype, device=x_start.device)
    x = model.q_sample(x_start, t, noise)
    output = model.apply_model(x, t, cond).float()
    loss, parts = model.losses_of(output, x_start, noise, t)

    eps = model.schedule.to_eps(output, x, t)
    with torch.no_grad():  # where the step leads is given; only what the network says there is trained
        above = model.q_sample(model.schedule.to_x0(output, x, t), t + stride, eps)
    eps_above = model.schedule.to_eps(model.apply_model(above, t + stride, cond).float(), above, t + stride)
    gap = square_across_scales(eps_above - eps)
    return loss + weight * gap, parts | {"train/inversion_gap": gap.detach()}


def square_across_scales(difference: Tensor) -> Tensor:
    """The mean square of [B, C, h, w] at its own and all halved resolutions, each in units of white noise.

    Averaged over p x p positions white noise loses a factor p^2 of its square, which is put back; so what has a
    direction over wide areas, and would shift the colours of an inverted picture, counts more than what has none.
    """
    sides = [2**i for i in range(min(difference.shape[-2:]).bit_length())]
    pooled = [F.avg_pool2d(difference, side).square().mean() * side**2 for side in sides]
    return torch.stack(pooled).mean()

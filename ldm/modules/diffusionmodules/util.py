"""Small parts that the networks share, and the old home of the schedule functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ldm.modules.cpu.group_norm import GroupNorm
from ldm.modules.diffusionmodules.schedule import (
    make_beta_schedule,
    make_ddim_sampling_parameters,
    make_ddim_timesteps,
)

__all__ = [
    "checkpointed",
    "group_norm",
    "make_beta_schedule",
    "make_ddim_sampling_parameters",
    "make_ddim_timesteps",
    "timestep_embedding",
    "zero_module",
]

GROUPS = 32
ModuleT = TypeVar("ModuleT", bound=nn.Module)


def timestep_embedding(timesteps: Tensor, dim: int, max_period: float = 10000.0) -> Tensor:
    """Sinusoidal features of a timestep: cosines first, then sines (Ho et al. 2020, section B; order as released).

    Args:
        timesteps: [B], whole or fractional.
        dim: number of features; an odd one is padded with a zero.
        max_period: period of the slowest wave, in timesteps.

    Returns:
        [B, dim] float32; frequency i of the half is ``max_period ** (-i / half)``.
    """
    half = dim // 2
    exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angles = timesteps.float()[:, None] * torch.exp(-math.log(max_period) * exponents)
    features = torch.cat([angles.cos(), angles.sin()], dim=-1)
    return nn.functional.pad(features, (0, dim % 2))


def group_norm(channels: int, eps: float = 1e-5) -> nn.GroupNorm:
    """The GroupNorm of every block: 32 groups; eps 1e-5 in the UNet, 1e-6 in transformers and autoencoders."""
    return GroupNorm(GROUPS, channels, eps=eps)


def zero_module(module: ModuleT) -> ModuleT:
    """Set every parameter to zero, so that a residual branch starts as nothing."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def checkpointed(function: Callable[..., Tensor], *inputs: Any, enabled: bool) -> Tensor:
    """Call ``function``; when enabled and a gradient is wanted, recompute it in the backward pass to save memory."""
    if enabled and torch.is_grad_enabled():
        return checkpoint(function, *inputs, use_reentrant=False)
    return function(*inputs)

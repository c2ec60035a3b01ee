"""Every sampler by name, and ``sample``: noise (or a noised picture) to a clean latent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ldm.models.diffusion.guidance import expand_condition, guided
from ldm.models.diffusion.loop import (
    Before,
    Denoiser,
    Draw,
    Snapshot,
    StepRule,
    beginning,
    estimator,
    in_painting,
    last_levels,
    run,
)
from ldm.models.diffusion.samplers.ddim import DDIM
from ldm.models.diffusion.samplers.dpm_solver import DPMSolver2M
from ldm.models.diffusion.samplers.dpm_solver_2s import DPMSolver2S
from ldm.models.diffusion.samplers.euler import Euler, EulerAncestral
from ldm.models.diffusion.samplers.heun import Heun
from ldm.models.diffusion.samplers.multistep import LinearMultistep
from ldm.models.diffusion.samplers.plms import PLMS
from ldm.util import UserError

SAMPLERS: dict[str, Callable[[], StepRule]] = {
    "ddim": DDIM,
    "plms": PLMS,
    "euler": Euler,
    "euler_ancestral": EulerAncestral,
    "heun": Heun,
    "lms": LinearMultistep,
    "dpm_solver": DPMSolver2M,
    "dpmpp_2s_ancestral": DPMSolver2S,
}


def step_rule(name: str, eta: float = 0.0) -> StepRule:
    """The step rule called ``name``; ``eta`` is DDIM's.

    Raises:
        UserError: an unknown name, or an ``eta`` for a rule that has none.
    """
    if name not in SAMPLERS:
        raise UserError(f"unknown sampler '{name}'; known: {', '.join(SAMPLERS)}")
    if eta == 0:
        return SAMPLERS[name]()
    if name != "ddim":
        raise UserError(f"sampler '{name}' has no eta (got {eta}); only ddim has")
    return DDIM(eta)


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    x_T: Tensor,
    cond: Any,
    *,
    steps: int,
    sampler: str = "ddim",
    guidance_scale: float | Tensor = 1.0,
    uncond: Any = None,
    eta: float = 0.0,
    noise: Draw | None = None,
    mask: Tensor | None = None,
    x0: Tensor | None = None,
    start: int | None = None,
    before: Sequence[Before] = (),
    callback: Callable[[Snapshot], None] | None = None,
    progress: bool = False,
) -> Tensor:
    """Denoise ``x_T`` [B, C, h, w] under ``cond`` (rows B or 1); returns the clean latent, same shape, float32.

    Args:
        denoiser: a model; or one with guidance of the caller's own, such as ``guided(model, scale, uncond)``.
        x_T: standard normal noise; with ``start``, a latent noised to where the walk begins (``noised``).
        guidance_scale, uncond: classifier-free guidance; with scale 1 or no ``uncond`` only ``cond`` is computed. The
            scale may be a tensor with one for each row, or for each frame; see ``guided``.
        noise: gives fresh standard normal noise [B, C, h, w]; torch's global CPU generator when None.
        mask, x0: in-painting; ``x0`` is kept where ``mask`` [B or 1, 1, h, w] is 1.
        start: run only the last ``start`` steps (image to image).
        before: each changes the latent before each step, in this order; in-painting comes after them.
        callback: gets a ``Snapshot`` after each step, whose ``x0`` a preview can decode; what it raises ends the walk.

    Raises:
        UserError: an unknown sampler, a number of steps or a start that does not fit, a mask without ``x0``.
    """
    rule = step_rule(sampler, eta)
    denoiser, cond = guided(denoiser, guidance_scale, uncond), expand_condition(cond, x_T.shape[0])
    levels = last_levels(rule.levels(denoiser.schedule, steps), start)

    def draw() -> Tensor:
        fresh = torch.randn(x_T.shape, device="cpu") if noise is None else noise()
        return fresh.to(x_T.device)

    changes = [*before, *in_painting(mask, x0, draw, x_T.device)]
    denoise = estimator(denoiser, cond)
    x = x_T if start is not None else beginning(x_T, levels[0])
    return run(rule, levels, x, denoise, draw, before=changes, callback=callback, progress=progress)


def noised(
    denoiser: Denoiser, latent: Tensor, noise: Tensor, *, steps: int, start: int, sampler: str = "ddim"
) -> Tensor:
    """``latent`` [B, C, h, w] at the level from which ``sample(..., steps=steps, start=start)`` begins.

    Raises:
        UserError: an unknown sampler, or a number of steps or a start that does not fit.
    """
    level = last_levels(step_rule(sampler).levels(denoiser.schedule, steps), start)[0]
    return level.noised(latent, noise.to(latent.device))

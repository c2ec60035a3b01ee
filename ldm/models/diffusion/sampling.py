"""Every sampler by name, and ``sample``: noise (or a noised picture) to a clean latent."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from ldm.models.diffusion.guidance import expand_condition, guided
from ldm.models.diffusion.loop import (
    Before,
    Denoise,
    Denoiser,
    Draw,
    Level,
    Schedule,
    Snapshot,
    State,
    StepRule,
    beginning,
    estimator,
    first_levels,
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
from ldm.modules.diffusionmodules.levels import Spacing
from ldm.util import UserError

SAMPLERS: dict[str, Callable[..., StepRule]] = {
    "ddim": DDIM,
    "plms": PLMS,
    "euler": Euler,
    "euler_ancestral": EulerAncestral,
    "heun": Heun,
    "lms": LinearMultistep,
    "dpm_solver": DPMSolver2M,
    "dpmpp_2s_ancestral": DPMSolver2S,
}


# what other programs call them
ALIASES = {
    "euler_a": "euler_ancestral",
    "dpmpp_2m": "dpm_solver",
    "dpmpp_2s_a": "dpmpp_2s_ancestral",
    "EulerEDMSampler": "euler",
    "HeunEDMSampler": "heun",
    "EulerAncestralSampler": "euler_ancestral",
    "DPMPP2SAncestralSampler": "dpmpp_2s_ancestral",
    "DPMPP2MSampler": "dpm_solver",
    "LinearMultistepSampler": "lms",
}
KARRAS = "_karras"


def step_rule(name: str, eta: float = 0.0) -> StepRule:
    """The step rule called ``name``; ``eta`` is DDIM's.

    Options of a rule follow a colon, such as "heun:s_churn=20,s_noise=1.003". A name that ends in "_karras" walks along
    levels spaced as powers of sigma (Karras et al. 2022, equation 5).

    Raises:
        UserError: an unknown name, or an ``eta`` or another option for a rule that has none.
    """
    plain, _, given = name.partition(":")
    karras, plain = plain.endswith(KARRAS), plain.removesuffix(KARRAS)
    plain = ALIASES.get(plain, plain)
    if plain not in SAMPLERS:
        raise UserError(f"unknown sampler '{plain}'; known: {', '.join(SAMPLERS)}")
    if eta != 0 and plain != "ddim":
        raise UserError(f"sampler '{plain}' has no eta (got {eta}); only ddim has")
    options = {} if eta == 0 else {"eta": eta}
    rule = SAMPLERS[plain](**{**options, **rule_options(plain, given)})
    return Spaced(rule, "karras") if karras else rule


def rule_options(sampler: str, text: str) -> dict[str, float]:
    """The options of a rule in ``name=number,...``.

    Raises:
        UserError: the rule has no such option, or what is given is no number.
    """
    kind = SAMPLERS[sampler]
    known: dict[str, Any] = {field.name: field.type for field in fields(kind)} if is_dataclass(kind) else {}
    options: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        option, _, value = (piece.strip() for piece in part.partition("="))
        if option not in known:
            raise UserError(f"sampler '{sampler}' has no option '{option}'; it has: {', '.join(known) or 'none'}")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        whole = known[option] == "int"
        if math.isnan(number) or number < 0 or (whole and (number < 1 or number != int(number))):
            raise UserError(f"option '{option}' of sampler '{sampler}' needs a number, got '{value[:40]}'")
        options[option] = int(number) if whole else number
    return options


@dataclass(frozen=True)
class Spaced:
    """A rule along levels spaced otherwise than it would have them."""

    rule: StepRule
    spacing: Spacing

    def levels(self, schedule: Schedule, steps: int) -> list[Level]:
        return self.rule.levels(OneSpacing(schedule, self.spacing), steps)

    def step(self, state: State, here: Level, there: Level, denoise: Denoise, draw: Draw) -> State:
        """As the rule's."""
        return self.rule.step(state, here, there, denoise, draw)


@dataclass(frozen=True)
class OneSpacing:
    """A schedule whose walks are all spaced in one way; asked for anything else it is the schedule."""

    schedule: Schedule
    spacing: Spacing

    def levels(self, steps: int, spacing: Spacing = "leading") -> list[Level]:
        return self.schedule.levels(steps, self.spacing)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.schedule, name)


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
    stop: int = 0,
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
        stop: leave off the last ``stop`` steps, which another model takes; what is returned is noisy then.
        before: each changes the latent before each step, in this order; in-painting comes after them.
        callback: gets a ``Snapshot`` after each step, whose ``x0`` a preview can decode; what it raises ends the walk.

    Raises:
        UserError: an unknown sampler, a number of steps or a start that does not fit, a mask without ``x0``.
    """
    rule = step_rule(sampler, eta)
    denoiser, cond = guided(denoiser, guidance_scale, uncond), expand_condition(cond, x_T.shape[0])
    levels = first_levels(last_levels(rule.levels(denoiser.schedule, steps), start), stop)
    draw = drawing(x_T, noise)
    changes = [*before, *in_painting(mask, x0, draw, x_T.device)]
    denoise = estimator(denoiser, cond)
    x = x_T if start is not None else beginning(x_T, levels[0])
    return run(rule, levels, x, denoise, draw, before=changes, callback=callback, progress=progress)


def drawing(like: Tensor, noise: Draw | None = None) -> Draw:
    """Fresh noise where a latent is and of its shape: what ``noise`` gives, or torch's global CPU generator."""

    def draw() -> Tensor:
        fresh = torch.randn(like.shape, device="cpu") if noise is None else noise()
        return fresh.to(like.device)

    return draw


def noised(
    denoiser: Denoiser, latent: Tensor, noise: Tensor, *, steps: int, start: int, sampler: str = "ddim"
) -> Tensor:
    """``latent`` [B, C, h, w] at the level from which ``sample(..., steps=steps, start=start)`` begins.

    Raises:
        UserError: an unknown sampler, or a number of steps or a start that does not fit.
    """
    level = last_levels(step_rule(sampler).levels(denoiser.schedule, steps), start)[0]
    return level.noised(latent, noise.to(latent.device))

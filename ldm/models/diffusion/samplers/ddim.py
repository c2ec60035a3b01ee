"""DDIM (Song et al. 2021): the step rule, its deterministic inversion, and the sampler class of old scripts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ldm.models.diffusion.classic import ClassicSampler
from ldm.models.diffusion.guidance import expand_condition, guided
from ldm.models.diffusion.loop import (
    CLEAN,
    Denoise,
    Draw,
    Estimate,
    Level,
    Schedule,
    Snapshot,
    State,
    StepRule,
    ask,
    estimator,
    run,
)
from ldm.modules.diffusionmodules.levels import numbered
from ldm.modules.diffusionmodules.schedule import posterior_spread
from ldm.util import UserError


def transfer(estimate: Estimate, there: Level, spread: float = 0.0, draw: Draw | None = None) -> Tensor:
    """The latent [B, C, h, w] at ``there`` made of an estimate, with ``spread`` of its noise fresh.

    signal' x0 + sqrt(noise'^2 - spread^2) eps + spread z (Song et al. 2021, equation 12), z from ``draw``.
    """
    kept = max(there.noise**2 - spread**2, 0.0) ** 0.5
    x = there.signal * estimate.x0 + kept * estimate.eps
    return x if draw is None or spread == 0 else x + spread * draw()


@dataclass(frozen=True)
class DDIM:
    """The DDIM step; ``eta`` 0 is deterministic, 1 has the noise of DDPM."""

    eta: float = 0.0

    def levels(self, schedule: Schedule, steps: int) -> list[Level]:
        return schedule.levels(steps, "leading")

    def step(self, state: State, here: Level, there: Level, denoise: Denoise, draw: Draw) -> State:
        """Equation 12, with ``eta`` times the posterior's deviation (equation 16) as fresh noise; see ``StepRule``."""
        estimate = denoise(state.x, here)
        spread = 0.0
        if self.eta:
            spread = self.eta * float(posterior_spread(here.signal, here.noise, there.signal, there.noise))
        return State(transfer(estimate, there, spread, draw), estimate.x0)


@torch.no_grad()
def invert(
    denoiser: Any,
    latent: Tensor,
    cond: Any,
    *,
    steps: int,
    callback: Callable[[Snapshot], None] | None = None,
    progress: bool = False,
) -> Tensor:
    """The noise from which deterministic DDIM would lead to ``latent`` [B, C, h, w]; same shape, float32.

    The network is asked at the lower of two levels and the latent moves to the upper one, so the result is exact
    only in the limit of many steps (Song et al. 2021, section 4.3). The levels are those that
    ``sample(sampler="ddim", steps=steps)`` visits, upwards; for a table of betas the last move goes beyond them, see
    ``Schedule.upwards``. The result is a latent at the level where it ends: what ``sample`` takes with ``start``.
    ``callback`` sees, at each step, the level at which the network was asked and the latent after the step.

    Raises:
        UserError: the number of steps does not fit the schedule.
    """
    levels = denoiser.schedule.upwards(steps)
    denoise = estimator(denoiser, expand_condition(cond, latent.shape[0]))
    return run(DDIM(), levels, latent, denoise, no_noise, callback=callback, progress=progress, label="inverting")


def no_noise() -> Tensor:
    """The noise of a walk that draws none.

    Raises:
        UserError: whenever it is asked.
    """
    raise UserError("a deterministic step asked for noise")


class DDIMSampler(ClassicSampler):
    """The DDIM sampler of old scripts."""

    def rule(self, eta: float) -> StepRule:
        return DDIM(eta)

    @torch.no_grad()
    def stochastic_encode(
        self, x0: Tensor, t: Tensor, use_original_steps: bool = False, noise: Tensor | None = None
    ) -> Tensor:
        """``x0`` [B, C, h, w] with the noise of entry ``t`` [B] of the step table (or of the full schedule)."""
        acp = self.model.schedule.alphas_cumprod.to(x0.device) if use_original_steps else self.ddim_alphas.to(x0.device)
        signal = acp[t.to(x0.device)].float().reshape(-1, *[1] * (x0.dim() - 1))
        noise = torch.randn_like(x0) if noise is None else noise
        return signal.sqrt() * x0 + (1 - signal).sqrt() * noise

    @torch.no_grad()
    def decode(
        self,
        x_latent: Tensor,
        cond: Any,
        t_start: int,
        unconditional_guidance_scale: float = 1.0,
        unconditional_conditioning: Any = None,
        use_original_steps: bool = False,
        callback: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Image to image: the first ``t_start`` entries of the step table downwards, from ``x_latent`` [B, C, h, w]."""
        levels = [*self._levels(use_original_steps)[:t_start][::-1], self._arrival(use_original_steps)]
        batch = x_latent.shape[0]
        denoise = self._denoise(cond, unconditional_guidance_scale, unconditional_conditioning, batch)
        report = None if callback is None else (lambda step: callback(step.index))
        rule = self.rule(self.ddim_eta)
        return run(rule, levels, x_latent, denoise, lambda: torch.randn_like(x_latent), callback=report, progress=True)

    @torch.no_grad()
    def encode(
        self,
        x0: Tensor,
        c: Any,
        t_enc: int,
        use_original_steps: bool = False,
        return_intermediates: int | None = None,
        unconditional_guidance_scale: float = 1.0,
        unconditional_conditioning: Any = None,
        callback: Callable[[int], None] | None = None,
    ) -> tuple[Tensor, dict[str, Any]]:
        """The ``encode`` of the SD v2 code as it was, for old results; ``invert`` is the right one.

        It tells the network the loop index instead of the timestep and takes the output for noise whatever the model
        predicts. Returns ``(latent, {"x_encoded", "intermediate_steps", "intermediates"})``, the last only with
        ``return_intermediates``, the number of latents to keep; latents are [B, C, h, w], as ``x0``.
        """
        table = self._levels(use_original_steps)[:t_enc]
        levels = [replace(level, told=i) for i, level in enumerate([self._arrival(use_original_steps), *table])]
        model = guided(self.model, unconditional_guidance_scale, unconditional_conditioning)
        kept: dict[int, Tensor] = {}

        def denoise(x: Tensor, level: Level) -> Estimate:
            eps = ask(model, x, level, expand_condition(c, x.shape[0]))
            return Estimate((x - level.noise * eps) / level.signal, eps)

        def report(step: Snapshot) -> None:
            if return_intermediates and (
                step.index % max(t_enc // return_intermediates, 1) == 0 or step.index >= t_enc - 2
            ):
                kept[step.index] = step.x
            if callback is not None:
                callback(step.index)

        x = run(DDIM(), levels, x0, denoise, no_noise, callback=report, progress=True, label="encoding")
        out: dict[str, Any] = {"x_encoded": x, "intermediate_steps": list(kept)}
        return x, ({**out, "intermediates": list(kept.values())} if return_intermediates else out)

    def _levels(self, use_original_steps: bool) -> list[Level]:
        """The step table upwards."""
        timesteps = range(self.ddpm_num_timesteps) if use_original_steps else self.ddim_timesteps
        return numbered([self.model.schedule.level(t) for t in reversed(timesteps)])[::-1]

    def _arrival(self, use_original_steps: bool) -> Level:
        """Where the last step of the table arrives."""
        level = CLEAN if use_original_steps else self.model.schedule.level(0)
        return replace(level, index=self.ddpm_num_timesteps if use_original_steps else len(self.ddim_timesteps))

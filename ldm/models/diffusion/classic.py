"""The sampler classes that old scripts call, on top of the one loop."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import dropout

from ldm.models.diffusion.guidance import expand_condition, guided
from ldm.models.diffusion.loop import Denoise, Estimate, Level, Snapshot, StepRule, estimator, in_painting, run
from ldm.modules.diffusionmodules.schedule import make_ddim_sampling_parameters, make_ddim_timesteps

log = logging.getLogger(__name__)


class ClassicSampler(ABC):
    """``Sampler(model).sample(S=..., ...)`` with the arguments of the original samplers.

    Args:
        model: a ``Denoiser``, such as LatentDiffusion.
        schedule: kept for old calls; the schedule is the model's.
        device: where the latents live; the model's device when None.
    """

    def __init__(self, model: Any, schedule: str = "linear", device: torch.device | str | None = None) -> None:
        self.model = model
        self.schedule = schedule
        self.device = torch.device(device) if device is not None else model.device
        self.ddpm_num_timesteps = len(model.schedule)

    @abstractmethod
    def rule(self, eta: float) -> StepRule:
        """The step rule behind this sampler."""

    def make_schedule(
        self, ddim_num_steps: int, ddim_discretize: str = "uniform", ddim_eta: float = 0.0, verbose: bool = True
    ) -> None:
        """Set ``ddim_timesteps`` (int64) and the tables ``ddim_*`` (float32 tensors) for that many steps.

        Raises:
            UserError: the number of steps or the spacing does not fit the schedule.
        """
        acp = self.model.schedule.alphas_cumprod
        self.ddim_timesteps = make_ddim_timesteps(ddim_discretize, ddim_num_steps, len(acp), verbose)
        tables = make_ddim_sampling_parameters(acp, self.ddim_timesteps, ddim_eta, verbose)
        sigmas, alphas, alphas_prev = (torch.from_numpy(table).float().to(self.device) for table in tables)
        self.ddim_sigmas, self.ddim_alphas, self.ddim_alphas_prev = sigmas, alphas, alphas_prev
        self.ddim_sqrt_one_minus_alphas = (1 - alphas).sqrt()
        self.ddim_eta = ddim_eta

    @torch.no_grad()
    def sample(
        self,
        S: int,
        batch_size: int,
        shape: Sequence[int],
        conditioning: Any = None,
        callback: Callable[[int], None] | None = None,
        normals_sequence: Sequence[Tensor] | None = None,
        img_callback: Callable[[Tensor, int], None] | None = None,
        quantize_x0: bool = False,
        eta: float = 0.0,
        mask: Tensor | None = None,
        x0: Tensor | None = None,
        temperature: float = 1.0,
        noise_dropout: float = 0.0,
        score_corrector: Any = None,
        corrector_kwargs: Mapping[str, Any] | None = None,
        verbose: bool = True,
        x_T: Tensor | None = None,
        log_every_t: int = 100,
        unconditional_guidance_scale: float = 1.0,
        unconditional_conditioning: Any = None,
        **unused: Any,
    ) -> tuple[Tensor, dict[str, list[Tensor]]]:
        """``(latent [B, *shape], {"x_inter": [...], "pred_x0": [...]})``, the latter every ``log_every_t`` steps.

        Args:
            callback, img_callback: called after each step with (i) and (predicted clean latent, i).
            normals_sequence: the noise of the steps, one tensor [B, *shape] each; drawn from torch's generator if None.
            quantize_x0: pass the predicted clean latent through the first stage's quantiser at each step.
            mask, x0: keep ``x0`` where ``mask`` is 1.
            temperature, noise_dropout: scale, and zero at random, the fresh noise of the steps.
            score_corrector: an object with ``modify_score(model, e_t, x, t, c, **corrector_kwargs)``.
        """
        if unused:
            log.warning("the sampler ignores: %s", ", ".join(sorted(unused)))
        rule = self.rule(eta)
        levels = rule.levels(self.model.schedule, S)
        size = (batch_size, *shape)
        x = torch.randn(size, device=self.device) if x_T is None else x_T.to(self.device)
        normals = iter(normals_sequence) if normals_sequence is not None else None

        def draw_plain() -> Tensor:
            return torch.randn(size, device=self.device)

        def draw() -> Tensor:
            fresh = next(normals).to(self.device) if normals is not None else draw_plain()
            return dropout(temperature * fresh, noise_dropout)

        denoise = self._denoise(conditioning, unconditional_guidance_scale, unconditional_conditioning, batch_size)
        if score_corrector is not None:
            denoise = corrected(denoise, score_corrector, self.model, conditioning, corrector_kwargs or {})
        if quantize_x0:
            denoise = quantized(denoise, self.model.first_stage_model)
        recorder = Recorder(x, log_every_t, callback, img_callback)
        before = in_painting(mask, x0, draw_plain, x.device)
        label = type(self).__name__
        x = run(rule, levels, x, denoise, draw, before=before, callback=recorder, progress=verbose, label=label)
        return x, recorder.intermediates

    def _denoise(self, cond: Any, scale: float, uncond: Any, batch: int) -> Denoise:
        return estimator(guided(self.model, scale, uncond), expand_condition(cond, batch))


class Recorder:
    """Keeps intermediate latents and forwards to the two callbacks of old scripts."""

    def __init__(
        self,
        x: Tensor,
        every: int,
        callback: Callable[[int], None] | None = None,
        img_callback: Callable[[Tensor, int], None] | None = None,
    ) -> None:
        self.intermediates: dict[str, list[Tensor]] = {"x_inter": [x], "pred_x0": [x]}
        self.every = every
        self.callback = callback
        self.img_callback = img_callback

    def __call__(self, step: Snapshot) -> None:
        if self.callback is not None:
            self.callback(step.index)
        if self.img_callback is not None:
            self.img_callback(step.x0, step.index)
        steps_left = step.total - 1 - step.index
        if steps_left % self.every == 0 or step.index == 0:
            self.intermediates["x_inter"].append(step.x)
            self.intermediates["pred_x0"].append(step.x0)


def corrected(denoise: Denoise, corrector: Any, model: Any, cond: Any, options: Mapping[str, Any]) -> Denoise:
    """``denoise`` with its noise estimate put through ``corrector.modify_score``."""

    def corrected_denoise(x: Tensor, level: Level) -> Estimate:
        t = model.schedule.tell(level, x)
        eps = corrector.modify_score(model, denoise(x, level).eps, x, t, cond, **options)
        return Estimate((x - level.noise * eps) / level.signal, eps)

    return corrected_denoise


def quantized(denoise: Denoise, first_stage: Any) -> Denoise:
    """``denoise`` with its clean latent put through the quantiser of a VQ first stage."""

    def quantized_denoise(x: Tensor, level: Level) -> Estimate:
        estimate = denoise(x, level)
        return Estimate(first_stage.quantize(estimate.x0)[0], estimate.eps)

    return quantized_denoise

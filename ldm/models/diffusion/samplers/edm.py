"""The sampler classes that configurations and scripts of the ``sgm`` world name, on top of the one loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from ldm.models.diffusion.guidance import can_join, for_rows, join
from ldm.models.diffusion.loop import StepRule, beginning, run
from ldm.models.diffusion.samplers.dpm_solver import DPMSolver2M
from ldm.models.diffusion.samplers.dpm_solver_2s import DPMSolver2S
from ldm.models.diffusion.samplers.euler import Euler, EulerAncestral
from ldm.models.diffusion.samplers.heun import Heun
from ldm.models.diffusion.samplers.multistep import LinearMultistep
from ldm.modules.diffusionmodules.denoiser import Denoiser
from ldm.modules.diffusionmodules.guiders import Guider, IdentityGuider
from ldm.modules.diffusionmodules.levels import CLEAN, Estimate, Level, Spacing, numbered
from ldm.modules.diffusionmodules.sigma_schedule import SigmaSchedule
from ldm.util import UserError, instantiate_from_config

PLAIN = {"target": "ldm.modules.diffusionmodules.denoiser_scaling.EpsScaling"}


class SigmaSampler(ABC):
    """``sampler(denoiser, noise, cond, uc)`` as the original samplers: a walk of latents x0 + sigma e.

    Args:
        discretization_config: the sigmas of the walk.
        num_steps: of it; may be given with the call.
        guider_config: how strongly guidance leads; not at all without.
        verbose: show progress.
        device: accepted for old configurations; latents are where they are.
    """

    name: ClassVar[str]  # of the step rule for the command line

    def __init__(
        self,
        discretization_config: Mapping[str, Any],
        num_steps: int | None = None,
        guider_config: Mapping[str, Any] | None = None,
        verbose: bool = False,
        device: str = "cuda",
    ) -> None:
        self.discretization = instantiate_from_config(discretization_config)
        self.num_steps = num_steps
        self.guider: Guider = IdentityGuider() if guider_config is None else instantiate_from_config(guider_config)
        self.verbose = verbose

    @property
    @abstractmethod
    def rule(self) -> StepRule:
        """The step rule behind this sampler."""

    @torch.no_grad()
    def __call__(
        self,
        denoiser: Callable[[Tensor, Tensor, Any], Tensor],
        x: Tensor,
        cond: Any,
        uc: Any = None,
        num_steps: int | None = None,
        draw: Callable[[], Tensor] | None = None,
    ) -> Tensor:
        """The clean latent [B, C, h, w] at the end of a walk from standard normal noise ``x``, which stays as it is.

        Args:
            denoiser: latents [B, C, h, w], sigmas [B] and a condition -> clean latents.
            cond, uc: what is led to, and what away from; without ``uc`` there is no guidance.
            num_steps: in place of the constructor's.
            draw: fresh standard normal noise of the shape of ``x``; torch's generator without.

        Raises:
            UserError: nobody says how many steps.
        """
        steps = num_steps or self.num_steps
        if steps is None:
            raise UserError(f"{type(self).__name__} needs 'num_steps', here or in its configuration")
        levels = self.rule.levels(Walk(Denoiser(PLAIN), self.discretization), steps)
        guided = self._guided(denoiser, cond, uc)

        def denoise(latents: Tensor, level: Level) -> Estimate:
            x0 = guided(latents, latents.new_full((len(latents),), level.noise))
            return Estimate(x0, (latents - x0) / level.noise)

        fresh = draw or (lambda: torch.randn(x.shape, device=x.device))
        start = beginning(x, levels[0])
        return run(self.rule, levels, start, denoise, fresh, progress=self.verbose, label=type(self).__name__)

    def _guided(
        self, denoiser: Callable[[Tensor, Tensor, Any], Tensor], cond: Any, uc: Any
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """The denoiser under its condition, led away from ``uc``."""
        if uc is None or isinstance(self.guider, IdentityGuider):
            return lambda x, sigma: denoiser(x, sigma, cond)

        def guided(x: Tensor, sigma: Tensor) -> Tensor:
            if can_join(uc, cond):
                both = denoiser(torch.cat([x, x]), torch.cat([sigma, sigma]), join(uc, cond))
                away, there = both.chunk(2)
            else:
                away, there = denoiser(x, sigma, uc), denoiser(x, sigma, cond)
            return away + for_rows(self.guider.scale, x) * (there - away)

        return guided


class Walk(SigmaSchedule):
    """The one walk of a discretisation; what the network makes of a level is the caller's business."""

    def levels(self, steps: int, spacing: Spacing = "leading") -> list[Level]:
        sigmas = self.discretization(steps).tolist()
        return numbered([self.at(sigma) if sigma > 0 else CLEAN for sigma in sigmas])

    def at(self, sigma: float) -> Level:
        return Level(sigma, 1.0, sigma)


class ChurnedSampler(SigmaSampler):
    """Those with fresh noise before a step; see ``ldm.models.diffusion.samplers.euler.Churn``."""

    def __init__(
        self,
        s_churn: float = 0.0,
        s_tmin: float = 0.0,
        s_tmax: float = float("inf"),
        s_noise: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.churn = {"s_churn": s_churn, "s_tmin": s_tmin, "s_tmax": s_tmax, "s_noise": s_noise}


class AncestralSampler(SigmaSampler):
    """Those with fresh noise after a step; see ``ldm.models.diffusion.samplers.euler.Ancestral``."""

    def __init__(self, eta: float = 1.0, s_noise: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.fresh = {"eta": eta, "s_noise": s_noise}


class EulerEDMSampler(ChurnedSampler):
    name = "euler"

    @property
    def rule(self) -> StepRule:
        return Euler(**self.churn)


class HeunEDMSampler(ChurnedSampler):
    name = "heun"

    @property
    def rule(self) -> StepRule:
        return Heun(**self.churn)


class EulerAncestralSampler(AncestralSampler):
    name = "euler_ancestral"

    @property
    def rule(self) -> StepRule:
        return EulerAncestral(**self.fresh)


class DPMPP2SAncestralSampler(AncestralSampler):
    name = "dpmpp_2s_ancestral"

    @property
    def rule(self) -> StepRule:
        return DPMSolver2S(**self.fresh)


class DPMPP2MSampler(SigmaSampler):
    name = "dpm_solver"

    @property
    def rule(self) -> StepRule:
        return DPMSolver2M()


class LinearMultistepSampler(SigmaSampler):
    """Raises ConfigError, where it is built, for an ``order`` below 1."""

    name = "lms"

    def __init__(self, discretization_config: Mapping[str, Any], order: int = 4, **options: Any) -> None:
        super().__init__(discretization_config, **options)
        self.order = order

    @property
    def rule(self) -> StepRule:
        return LinearMultistep(self.order)

"""Stable Diffusion XL's second network, which finishes what the first has begun (Podell et al. 2023, section 2.5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ldm.models.diffusion.sampling import noised, sample, step_rule
from ldm.util import UserError
from ldm.workflows.batches import Batch
from ldm.workflows.plan import Plan
from ldm.workflows.prompts import conditions
from ldm.workflows.studio import Studio, open_studio
from ldm.workflows.xl_options import SCORE, SizeOptions


@dataclass(frozen=True)
class Refiner:
    """A refiner at hand, and how it is asked.

    Attributes:
        start, strength: see ``RefinerOptions``; ``strength`` wins where both are there.
        told, away: what its condition gets, and what guidance leads away from.
    """

    studio: Studio
    start: float = 0.8
    strength: float | None = None
    told: Mapping[str, Any] = field(default_factory=dict)
    away: Mapping[str, Any] = field(default_factory=dict)

    def own_steps(self, total: int) -> int:
        """How many of ``total`` steps it takes: of the sigmas and the 0 behind them its share, one at least."""
        share = 1 - self.start if self.strength is None else self.strength
        return max(int(share * (total + 1) + 1e-6), 1) - 1

    def left_over(self, total: int) -> int:
        """How many of ``total`` steps the first network leaves to it."""
        return self.own_steps(total) if self.strength is None else 0

    def finish(
        self, latents: Tensor, plan: Plan, batch: Batch, draw: Callable[[], Tensor], callback: Any, progress: bool
    ) -> Tensor:
        """Latents [B, C, h, w], left where ``left_over`` says or finished, as it finishes them.

        Args:
            draw: fresh standard normal noise of their shape.
            callback: gets a ``Snapshot`` after each step.
        """
        model, size = self.studio.model, (latents.shape[-2], latents.shape[-1])
        start = self.own_steps(len(step_rule(plan.sampler, plan.eta).levels(model.schedule, plan.steps)) - 1)
        if start == 0:
            return latents
        walk: dict[str, Any] = {"steps": plan.steps, "sampler": plan.sampler, "start": start}
        x = latents.to(model.device)
        if self.strength is not None:
            x = noised(model, x, draw().to(x), **walk)
        guided = plan.guidance_scale != 1
        with self.studio.lock, self.studio.mixed():
            condition, uncond = conditions(
                model, batch.prompts, plan.negative_prompt, size, guided, self.away, **self.told
            )
            return sample(
                model, x, condition, **walk, eta=plan.eta, guidance_scale=plan.guidance_scale, uncond=uncond,
                noise=draw, callback=callback, progress=progress,
            ).to(latents)  # fmt: skip

    def about(self) -> dict[str, Any]:
        """What is written into a picture."""
        how = {"refiner_start": self.start} if self.strength is None else {"refiner_strength": self.strength}
        return {"refiner": self.studio.name, **how, **self.told}


def refiner_for(options: Any, studio: Studio) -> Refiner | None:
    """The refiner that options name, for pictures of a model; None where they name none.

    Args:
        options: with the fields of ``RefinerOptions`` and ``SizeOptions``; ``refiner`` may also be a model at hand.

    Raises:
        UserError: it is no refiner, or works on other latents than the model.
    """
    if options.refiner is None:
        return None
    at_hand = not isinstance(options.refiner, str)
    second = Studio.of(options.refiner, options.precision) if at_hand else open_studio(
        options.refiner, device=options.device, precision=options.precision
    )  # fmt: skip
    check_refiner(second, studio)
    sizes: SizeOptions = options
    told = sizes.told(second.model, studio.model)
    return Refiner(second, options.refiner_start, options.refiner_strength, told, sizes.told_away(second.model))


def is_refiner(model: Any) -> bool:
    """Whether a model finishes pictures: it is told how beautiful they are to be."""
    return any(need.name == SCORE for need in model.needs.optional)


def check_refiner(second: Studio, first: Studio) -> None:
    """Raises UserError when a model is no refiner for another."""
    if not is_refiner(second.model):
        raise UserError(f"'{second.name}' is no refiner, which would be told an aesthetic score: --refiner needs one")
    ends = [(level.signal, level.noise) for one in (first, second) for level in one.model.schedule.levels(10)[:1]]
    same = all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(*ends, strict=True))
    scales = [float(one.model.scale_factor) for one in (first, second)]
    if not same or scales[0] != scales[1] or first.model.channels != second.model.channels:
        raise UserError(f"the refiner '{second.name}' works on other latents than '{first.name}'")


def check_not_refiner(studio: Studio) -> None:
    """Raises UserError when pictures are to come from a refiner alone."""
    if is_refiner(studio.model):
        raise UserError(
            f"'{studio.name}' is a refiner, which finishes the pictures of another model: give it as --refiner, and "
            "the base model as --ckpt; scripts/img2img.py takes it alone, for a picture that is there"
        )

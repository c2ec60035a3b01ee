"""A content that a prompt makes: its own sampling is what an inversion would be, so that it needs none."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ldm.control import FeatureStore, attention_mode
from ldm.models.diffusion.guidance import Guided, rows_of
from ldm.models.diffusion.loop import Schedule, Snapshot, estimator, run
from ldm.models.diffusion.noise import ImageNoise
from ldm.models.diffusion.samplers.ddim import no_noise
from ldm.workflows.inversion.cache import Capture, Needs
from ldm.workflows.inversion.invert import Inversion, unet_of
from ldm.workflows.restyle.recipe import Recipe
from ldm.workflows.restyle.steps import walk, way_of


@dataclass(frozen=True)
class UnderPrompt:
    """A model that is asked under a prompt with guidance: what a generated content and its restylings have in common.

    Attributes:
        uncond: what guidance leads away from; None: there is none.
    """

    whole: Any
    cond: Any
    uncond: Any
    scale: float

    @property
    def model(self) -> Any:
        """The module that holds the network."""
        return self.whole.model

    @property
    def schedule(self) -> Schedule:
        return self.whole.schedule

    @property
    def device(self) -> torch.device:
        return self.whole.device

    def predict(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        if self.uncond is None:
            return self.whole.predict(x, t, cond)
        return Guided(self.whole, self.scale, self.uncond).predict(x, t, cond)


@torch.no_grad()
def generated(
    asked: UnderPrompt,
    shape: tuple[int, int, int],
    seed: int,
    recipe: Recipe,
    capture: Capture,
    needs: Needs,
    callback: Callable[[Snapshot], None] | None = None,
    progress: bool = False,
) -> tuple[Tensor, Inversion]:
    """The latent [1, C, h, w] that DDIM makes under a prompt, and its walk as if it were that latent's inversion.

    The features are those of all rows of a call: first those of what guidance leads away from, if there is any.

    Args:
        shape: (C, h, w).
    """
    assert rows_of(asked.cond) == 1
    levels, way = walk(asked.schedule, recipe), way_of(asked.schedule, recipe)
    noise = ImageNoise([seed]).draw(shape).to(asked.device)
    store, states = FeatureStore(capture.dtype), {levels[0].index: noise}
    arrivals = {here.index: there.index for here, there in itertools.pairwise(levels)}

    def keep(step: Snapshot) -> None:
        states[arrivals[step.level.index]] = step.x
        if callback is not None:
            callback(step)

    rule = way.down(levels[0], asked.schedule.upwards(recipe.save_feat_steps), 0.0)
    with attention_mode(unet_of(asked), capture.modes(store, needs)):
        latent = run(rule, levels, noise, estimator(asked, asked.cond), no_noise, callback=keep, progress=progress)
    upwards = levels[-2::-1]
    visited = {level.index: states[level.index] for level in upwards}
    return latent, Inversion(visited, {level.index: level.told for level in upwards}, noise, store)

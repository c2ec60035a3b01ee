"""Inversion in steps that sampling undoes."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch

from ldm.models.diffusion.loop import Snapshot, estimator, run
from ldm.models.diffusion.samplers import ddim
from ldm.models.diffusion.samplers.ddim import DDIM
from ldm.models.diffusion.samplers.fixed_point import FixedPoint
from tests.models.diffusion.gaussian_world import GaussianDenoiser


def start() -> torch.Tensor:
    return 0.6 + 0.5 * torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0))


def keeping(visited: dict[int, torch.Tensor]) -> Callable[[Snapshot], None]:
    """Keeps each latent under the index of the level where its step began."""

    def keep(step: Snapshot) -> None:
        visited[step.level.index] = step.x

    return keep


@pytest.mark.parametrize("parameterization", ["eps", "v"])
def test_every_step_is_undone(parameterization: str) -> None:
    world = GaussianDenoiser(parameterization=parameterization)
    denoise = estimator(world, None)
    error: dict[int, float] = {}
    for rounds in (0, 3, 12):
        visited = {-2: start()}
        levels = world.schedule.upwards(20)
        run(FixedPoint(rounds), levels, start(), denoise, start, callback=keeping(visited))
        worst = 0.0
        for here, there in itertools.pairwise(levels[:-1]):
            before = start() if here == levels[0] else visited[here.index + 1]
            back = run(DDIM(), [there, here], visited[here.index], denoise, start)
            worst = max(worst, float((back - before).abs().max()))
        error[rounds] = worst
    assert error[0] > 1e-2 and error[12] < 1e-5
    assert error[3] < 1e-5, "mixed, three rounds are enough where all values are moved by one factor"


def test_no_rounds_are_ddims_inversion_and_each_costs_a_call() -> None:
    world, counted = GaussianDenoiser(), GaussianDenoiser()
    levels, seen = world.schedule.upwards(10), list[Snapshot]()
    plain = ddim.invert(world, start(), None, steps=10)
    assert torch.equal(run(FixedPoint(0), levels, start(), estimator(world, None), start), plain)
    found = run(FixedPoint(2), levels, start(), estimator(counted, None), start, callback=seen.append)
    assert not torch.allclose(found, plain, atol=1e-3)
    assert [step.t for step in seen] == list(range(1, 1000, 100)) and len(counted.calls) == 10 + 2 * 9

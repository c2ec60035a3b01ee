"""Settling where the network's expectation is known: each value goes half the way to it, noise by noise."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from ldm.models.diffusion.loop import Denoiser
from ldm.models.diffusion.sampling import step_rule
from ldm.models.diffusion.settling import settled, settling_levels
from tests.models.diffusion.gaussian_world import GaussianDenoiser
from tests.models.diffusion.sigma_world import SigmaDenoiser

SHAPE = (2, 3, 4, 4)


def noises(seed: int = 0) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(SHAPE, generator=generator)


@pytest.mark.parametrize("denoiser", [GaussianDenoiser(), GaussianDenoiser(parameterization="v"), SigmaDenoiser()])
def test_it_goes_half_the_way_to_the_mean_of_what_is_expected(denoiser: GaussianDenoiser | SigmaDenoiser) -> None:
    levels = settling_levels(step_rule("ddim").levels(denoiser.schedule, 25))
    start, given, same = torch.randn(SHAPE), noises(), noises()
    shift = torch.tensor([[0.0], [0.5]])
    out = settled(denoiser, start, shift, levels, lambda: next(given), times=4)
    wanted, mean = start.double(), denoiser.mean + shift.double().reshape(-1, 1, 1, 1)
    for level in levels:
        noise = sum(next(same).double() for _ in range(4)) / 4
        gain = level.signal * denoiser.deviation**2 / ((level.signal * denoiser.deviation) ** 2 + level.noise**2)
        expected = mean + gain * (level.signal * (wanted - mean) + level.noise * noise)
        wanted = (wanted + expected) / 2
    assert torch.allclose(out.double(), wanted, atol=1e-5)


def test_chance_errors_shrink() -> None:
    """Half of an error is left at a level, and of the rest what the network takes from the latent."""
    denoiser, given = GaussianDenoiser(deviation=0.1), noises()
    levels = settling_levels(step_rule("ddim").levels(denoiser.schedule, 25))
    start = denoiser.mean + 0.3 * torch.randn((2, 3, 4, 4), generator=torch.Generator().manual_seed(1))
    out = settled(denoiser, start, None, levels, lambda: next(given), times=8)
    assert (out - denoiser.mean).std() < 0.5 * (start - denoiser.mean).std()


@pytest.mark.parametrize(("steps", "told"), [(25, [561, 241]), (2, [1, 1]), (1, [1, 1])])
def test_the_levels_are_those_of_the_walk(steps: int, told: list[int]) -> None:
    denoiser: Denoiser = GaussianDenoiser()
    assert [level.told for level in settling_levels(step_rule("ddim").levels(denoiser.schedule, steps))] == told


def test_it_asks_so_many_times_a_level() -> None:
    denoiser, given = GaussianDenoiser(), noises()
    levels = settling_levels(step_rule("ddim").levels(denoiser.schedule, 10))
    settled(denoiser, torch.zeros(SHAPE), None, levels, lambda: next(given), times=3)
    assert denoiser.calls == [2] * 6

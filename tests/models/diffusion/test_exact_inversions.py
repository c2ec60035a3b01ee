"""Inversions that are undone exactly, and a walk on which the network is asked at some levels only."""

from __future__ import annotations

import pytest
import torch

from ldm.models.diffusion.loop import Snapshot, StepRule, estimator, run
from ldm.models.diffusion.samplers.bdia import Bdia, BdiaInversion
from ldm.models.diffusion.samplers.ddim import DDIM, no_noise
from ldm.models.diffusion.samplers.edict import Edict, EdictInversion, doubled
from ldm.models.diffusion.samplers.fixed_point import FixedPoint
from ldm.models.diffusion.samplers.sparse import SparseDDIM, evenly_among
from tests.models.diffusion.gaussian_world import GaussianDenoiser

STEPS = 20


def start() -> torch.Tensor:
    return 0.6 + 0.5 * torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0))


def there_and_back(world: GaussianDenoiser, up: StepRule, state: torch.Tensor, down: str) -> torch.Tensor:
    """The latents [B, C, h, w] that sampling makes of the end of an inversion, at the level where that began."""
    denoise, levels = estimator(world, None), world.schedule.upwards(STEPS)
    seen = list[Snapshot]()
    end = run(up, levels, state, denoise, no_noise, callback=seen.append)
    if down == "edict":
        return run(Edict(), levels[::-1], end, denoise, no_noise)[:, :2]
    if down == "bdia":
        pair = torch.cat([seen[-2].x, end], dim=1)
        return run(Bdia(levels[-1]), levels[-2::-1], pair, denoise, no_noise)[:, :2]
    return run(DDIM(), levels[::-1], end, denoise, no_noise)


@pytest.mark.parametrize("parameterization", ["eps", "v"])
def test_what_is_inverted_comes_back(parameterization: str) -> None:
    world = GaussianDenoiser(parameterization=parameterization)
    error = {
        "ddim": there_and_back(world, FixedPoint(0), start(), "ddim") - start(),
        "edict": there_and_back(world, EdictInversion(), doubled(start()), "edict") - start(),
        "bdia": there_and_back(world, BdiaInversion(), start(), "bdia") - start(),
    }
    worst = {name: float(difference.abs().max()) for name, difference in error.items()}
    assert worst["ddim"] > 0.01 and worst["edict"] < 1e-3 and worst["bdia"] < 1e-3, worst


def test_what_they_cost() -> None:
    for up, state, calls in ((EdictInversion(), doubled(start()), 2), (BdiaInversion(), start(), 1)):
        world = GaussianDenoiser()
        run(up, world.schedule.upwards(STEPS), state, estimator(world, None), no_noise)
        assert len(world.calls) == calls * STEPS


def test_a_pair_of_the_same_steps_as_ddim() -> None:
    """EDICT without mixing, of two equal latents, takes a step that differs from DDIM's by its second call alone."""
    world = GaussianDenoiser()
    here, there = world.schedule.levels(STEPS)[3:5]
    denoise = estimator(world, None)
    pair = run(Edict(mixed=1.0), [here, there], doubled(start()), denoise, no_noise)
    plain = run(DDIM(), [here, there], start(), denoise, no_noise)
    torch.testing.assert_close(pair[:, 2:], plain)
    assert not torch.equal(pair[:, :2], plain)


@pytest.mark.parametrize("upwards", [True, False])
def test_asked_everywhere_a_sparse_walk_is_ddims(upwards: bool) -> None:
    world, steps = GaussianDenoiser(), 50
    levels = world.schedule.upwards(steps) if upwards else world.schedule.levels(steps)
    denoise = estimator(world, None)
    plain = run(DDIM(), levels, start(), denoise, no_noise)
    assert torch.equal(run(SparseDDIM(asked=frozenset(range(steps))), levels, start(), denoise, no_noise), plain)

    asked = evenly_among(1, steps - 1, steps // 3)
    counted = GaussianDenoiser()
    sparse = run(SparseDDIM(asked=asked), levels, start(), estimator(counted, None), no_noise)
    assert len(counted.calls) in (len(asked), len(asked) + 1)  # the noisiest level, which sampling of a restyling skips
    every_third = [level for level in levels if level.index in asked or level in (levels[0], levels[-1])]
    longer = run(DDIM(), every_third, start(), denoise, no_noise)
    assert (sparse - plain).abs().mean() < 0.5 * (longer - plain).abs().mean()


def test_levels_to_ask() -> None:
    assert evenly_among(1, 49, 16) == {1, 4, 7, 11, 14, 17, 20, 23, 27, 30, 33, 36, 39, 43, 46, 49}
    assert evenly_among(1, 4, 1) == {1, 4} and evenly_among(2, 2, 5) == {2}

"""Levels: sigmas instead of betas through the same loop and samplers, the walk's hooks, and who knows the level."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from ldm.models.diffusion.loop import CLEAN, Level, Snapshot, ask, estimator, run
from ldm.models.diffusion.noise import ImageNoise
from ldm.models.diffusion.samplers.ddim import DDIM, invert
from ldm.models.diffusion.sampling import SAMPLERS, noised, sample
from ldm.modules.diffusionmodules.levels import at_level, current_level, index_among
from ldm.util import UserError
from tests.models.diffusion.gaussian_world import GaussianDenoiser
from tests.models.diffusion.sigma_world import SigmaDenoiser

SHAPE = (4, 4, 16, 16)


def start(seed: int = 0) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_sigmas_reach_the_known_distribution(sampler: str) -> None:
    world, noise = SigmaDenoiser(mean=0.6, deviation=0.3), ImageNoise(range(4))
    x = sample(world, start(), None, steps=150, sampler=sampler, noise=lambda: noise.draw(SHAPE[1:]))
    assert abs(x.mean() - 0.6) < 0.02
    assert abs(x.std() - 0.3) < 0.02
    assert len(world.told) == {"plms": 151, "heun": 299, "dpmpp_2s_ancestral": 299}.get(sampler, 150)
    assert world.told[0] == pytest.approx(math.log(80) / 4) and world.told[-1] == pytest.approx(math.log(0.02) / 4)
    assert world.told[-1] < 0


def test_steps_are_those_of_the_papers_in_sigma() -> None:
    """Euler, ancestral Euler and DPM-Solver++(2M) as they are written in sigma, x = x0 + sigma e."""
    noise = [start(i) for i in range(1, 9)]
    sigmas = [level.noise for level in SigmaDenoiser().schedule.levels(8)]
    denoise = estimator(SigmaDenoiser(), None)

    def x0(x: Tensor, i: int) -> Tensor:
        return denoise(x, Level(math.log(sigmas[i]) / 4, 1.0, sigmas[i])).x0.double()

    x = {name: math.hypot(1, sigmas[0]) * start().double() for name in ("euler", "euler_ancestral", "dpm_solver")}
    before = None
    for i, (s, s_next) in enumerate(itertools.pairwise(sigmas)):
        D = x0(x["euler"].float(), i)
        x["euler"] += (x["euler"] - D) / s * (s_next - s)
        D = x0(x["euler_ancestral"].float(), i)
        up = min(s_next, (s_next**2 * (s**2 - s_next**2) / s**2) ** 0.5)
        down = (s_next**2 - up**2) ** 0.5
        x["euler_ancestral"] += (x["euler_ancestral"] - D) / s * (down - s) + up * noise[i].double()
        D = x0(x["dpm_solver"].float(), i)
        ratio, target = s_next / s, D
        if before is not None and s_next > 0:
            r = math.log(sigmas[i - 1] / s) / math.log(s / s_next)
            target = (1 + 1 / (2 * r)) * D - before / (2 * r)
        x["dpm_solver"] = ratio * x["dpm_solver"] - (ratio - 1) * target
        before = D
    for name, expected in x.items():
        stream = iter(noise)
        ours = sample(SigmaDenoiser(), start(), None, steps=8, sampler=name, noise=partial(next, stream))
        torch.testing.assert_close(ours, expected.float(), rtol=1e-4, atol=1e-4)


def test_inversion_along_sigmas_and_back() -> None:
    latent = 0.6 + 0.3 * start()
    seen: list[Snapshot] = []
    error = {}
    for steps in (40, 320):
        x = invert(SigmaDenoiser(), latent, None, steps=steps, callback=seen.append if steps == 40 else None)
        assert x.std() == pytest.approx(math.hypot(80, 0.3), rel=8 / steps)
        error[steps] = float((sample(SigmaDenoiser(), x, None, steps=steps, start=steps) - latent).abs().max())
    assert error[40] < 1 and error[320] < error[40] / 4
    assert [step.level.index for step in seen] == list(range(39, 0, -1))
    assert [step.index for step in seen] == list(range(39))
    assert [step.t for step in seen] == sorted(step.t for step in seen) and seen[0].t < 0


def test_image_to_image_and_in_painting_along_sigmas() -> None:
    world = SigmaDenoiser()
    latent = 0.6 + 0.3 * start(1)
    x = noised(world, latent, start(), steps=20, start=6)
    sigma = world.schedule.levels(20)[14].noise
    torch.testing.assert_close(x, latent + sigma * start())
    seen: list[Snapshot] = []
    sample(world, x, None, steps=20, start=6, callback=seen.append)
    assert [step.level.index for step in seen] == list(range(14, 20)) and seen[0].index == 0
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1
    kept = sample(world, start(), None, steps=40, mask=mask, x0=latent)
    torch.testing.assert_close(kept[..., :8], latent[..., :8], rtol=0, atol=0.15)


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_one_step_along_sigmas(sampler: str) -> None:
    x = sample(SigmaDenoiser(), start(), None, steps=1, sampler=sampler, noise=start)
    torch.testing.assert_close(x.mean(), torch.tensor(0.6), rtol=0, atol=0.02)


def test_indices_are_those_of_the_whole_walk() -> None:
    schedule = GaussianDenoiser().schedule
    down = schedule.levels(50)
    assert [level.index for level in down] == list(range(51)) and down[0].told == 981 and down[-1].told == 0
    up = schedule.upwards(50)
    assert up[:-1] == down[-2::-1]  # the same levels, with the same indices
    assert (up[-1].told, up[-1].index) == (999, -1)
    assert schedule.levels(10, "linspace")[0].told == schedule.levels(10, "half_open")[0].told == 999
    assert schedule.levels(10, "linspace")[9].told == 0 and schedule.levels(10, "half_open")[9].told == 100
    assert schedule.level(7).index == 7
    assert schedule.tell(down[3], start()).tolist() == [921] * 4 and schedule.tell(down[3], start()).dtype == torch.long
    between = schedule.tell(replace(down[3], told=979.02), start())
    assert between.dtype == torch.float32 and between[0] == pytest.approx(979.02)


class Listener(GaussianDenoiser):
    """Remembers which level was said to be the current one whenever the network was asked."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.levels: list[Level | None] = []

    def predict(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        self.levels.append(current_level())
        return super().predict(x, t, cond)


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_who_is_asked_may_know_the_level(sampler: str) -> None:
    world = Listener()
    cond, uncond = torch.ones(1, 1), torch.zeros(1, 1)
    sample(world, start(), cond, steps=5, sampler=sampler, guidance_scale=3.0, uncond=uncond)
    indices = [level.index for level in world.levels if level is not None]
    asked = {"plms": [0, 1, 1, 2, 3, 4], "heun": [0, 1, 1, 2, 2, 3, 3, 4, 4],
             "dpmpp_2s_ancestral": [0, 0, 1, 1, 2, 2, 3, 3, 4]}  # fmt: skip
    assert indices == asked.get(sampler, [0, 1, 2, 3, 4])
    assert current_level() is None
    with at_level(CLEAN):
        ask(world, start(), world.schedule.level(3), None)
        assert current_level() is CLEAN
    assert world.levels[-1] == world.schedule.level(3)


def test_changes_before_a_step_come_in_order() -> None:
    said: list[tuple[str, int]] = []

    def change(name: str, factor: float) -> Any:
        def hook(x: Tensor, level: Level) -> Tensor:
            assert current_level() is level
            said.append((name, level.index))
            return factor * x

        return hook

    world = GaussianDenoiser()
    levels = world.schedule.levels(2)
    denoise = estimator(world, None)
    x = run(DDIM(), levels, start(), denoise, start, before=[change("a", 2.0), change("b", 0.25)])
    assert said == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    half = start()
    for here, there in itertools.pairwise(levels):
        half = run(DDIM(), [here, there], half / 2, denoise, start)
    assert torch.equal(x, half)
    said.clear()
    known = torch.full(SHAPE, 2.0)
    mask = torch.ones(1, 1, 16, 16)
    seen: list[Tensor] = []
    sample(
        world, start(), None, steps=2, before=[change("a", 2.0)], mask=mask, x0=known,
        noise=lambda: torch.zeros(SHAPE), callback=lambda step: seen.append(step.x0),
    )  # fmt: skip
    assert len(said) == 2  # and the mask comes last: the network saw nothing but the latent that is kept
    expected = denoise(levels[1].signal * known, levels[1]).x0
    torch.testing.assert_close(seen[-1], expected)


def test_which_of_several_levels() -> None:
    told = {0: 7.5, 1: 7.5, 2: -0.25}
    assert index_among(told, 1, 7.5) == 1 and index_among(told, 9, -0.25) == 2 and index_among(told, 0, 3) is None
    with pytest.raises(UserError, match=r"told 7.5 at 2 levels"):
        index_among(told, 5, 7.5)

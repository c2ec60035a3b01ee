"""Samplers in a world whose perfect denoiser is known, and the properties that each one promises."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ldm.models.diffusion.loop import Snapshot
from ldm.models.diffusion.noise import ImageNoise
from ldm.models.diffusion.samplers.ddim import DDIMSampler, invert
from ldm.models.diffusion.samplers.plms import PLMSSampler
from ldm.models.diffusion.sampling import SAMPLERS, noised, sample
from ldm.util import UserError
from tests.models.diffusion.gaussian_world import GaussianDenoiser

SHAPE = (4, 4, 16, 16)
DETERMINISTIC = ["ddim", "plms", "euler", "dpm_solver"]


def start(seed: int = 0) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("parameterization", ["eps", "v", "x0"])
@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_reaches_the_known_distribution(sampler: str, parameterization: str) -> None:
    world = GaussianDenoiser(mean=0.6, deviation=0.5, parameterization=parameterization)
    noise = ImageNoise(range(4))
    x = sample(world, start(), None, steps=100, sampler=sampler, noise=lambda: noise.draw(SHAPE[1:]))
    assert abs(x.mean() - 0.6) < 0.03  # 4096 values: the deviation of the mean is 0.008
    assert abs(x.std() - 0.5) < 0.03


def exact_end(world: GaussianDenoiser, x: torch.Tensor, t: int, end_signal: float, end_noise: float) -> torch.Tensor:
    """The probability flow of a Gaussian keeps (x - s mean) / (deviation of x): a closed form to compare with."""
    s, n = float(world.schedule.signal(t)), float(world.schedule.noise(t))
    from_deviation = (s**2 * world.deviation**2 + n**2) ** 0.5
    to_deviation = (end_signal**2 * world.deviation**2 + end_noise**2) ** 0.5
    return end_signal * world.mean + to_deviation / from_deviation * (x - s * world.mean)


@pytest.mark.parametrize(
    ("sampler", "first", "end", "order", "most"),  # a rule that forgets what it remembers has twice that error
    [
        ("ddim", None, 0, 1, 0.055),
        ("plms", None, 0, 2, 0.001),
        ("euler", 999, None, 1, 0.06),
        ("dpm_solver", 999, None, 1, 0.04),
    ],
)
def test_converges_to_the_exact_flow_at_its_order(
    sampler: str, first: int | None, end: int | None, order: int, most: float
) -> None:
    world = GaussianDenoiser()
    errors = []
    for steps in (50, 100):
        t = first if first is not None else 1000 - 1000 // steps + 1
        ends = (1.0, 0.0) if end is None else (float(world.schedule.signal(end)), float(world.schedule.noise(end)))
        x = sample(world, start(), None, steps=steps, sampler=sampler)
        errors.append((x - exact_end(world, start(), t, *ends)).abs().max().item())
    assert errors[1] < errors[0] / 2**order * 1.4
    assert errors[1] < most


@pytest.mark.parametrize("parameterization", ["eps", "v"])
def test_invert_then_sample_returns_the_start(parameterization: str) -> None:
    world = GaussianDenoiser(parameterization=parameterization)
    latent = 0.6 + 0.5 * start()
    error = {}
    for steps in (50, 250):
        x_T = invert(world, latent, None, steps=steps)
        error[steps] = (sample(world, x_T, None, steps=steps) - latent).abs().max().item()
    assert error[50] < 0.3 and error[250] < error[50] / 3


def test_inversion_asks_at_the_lower_step_and_ends_inside_the_schedule() -> None:
    world = GaussianDenoiser()
    seen: list[Snapshot] = []
    result = invert(world, start(), None, steps=50, callback=seen.append)
    assert [s.t for s in seen] == list(range(1, 1000, 20))
    assert torch.equal(seen[-1].x, result)
    signal, noise = float(world.schedule.signal(999)), float(world.schedule.noise(999))
    t = torch.full((4,), 981)
    eps = world.predict(seen[-2].x, t, None)
    expected = signal * world.schedule.to_x0(eps, seen[-2].x, t) + noise * eps
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_a_picture_does_not_depend_on_its_batch(sampler: str) -> None:
    def generate(seeds: list[int]) -> torch.Tensor:
        noise = ImageNoise(seeds)
        x_T = noise.draw(SHAPE[1:])
        return sample(GaussianDenoiser(), x_T, None, steps=10, sampler=sampler, noise=lambda: noise.draw(SHAPE[1:]))

    together = generate([7, 8, 9])
    alone = torch.cat([generate([seed]) for seed in (7, 8, 9)])
    torch.testing.assert_close(together, alone)
    assert (together[0] - together[1]).abs().max() > 0.1


def test_image_noise_is_a_stream_per_image() -> None:
    noise = ImageNoise([3, 4])
    first, second = noise.draw((2, 5)), noise.draw((2, 5))
    assert first.shape == (2, 2, 5) and not torch.equal(first, second)
    generator = torch.Generator().manual_seed(4)
    assert torch.equal(first[1], torch.randn(2, 5, generator=generator))
    assert torch.equal(second[1], torch.randn(2, 5, generator=generator))


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_in_painting_keeps_the_masked_part(sampler: str) -> None:
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1
    known = torch.full(SHAPE, 2.0)
    x = sample(GaussianDenoiser(deviation=10.0), start(), None, steps=50, sampler=sampler, mask=mask, x0=known)
    assert (x[..., :8] - 2.0).abs().mean() < 0.15
    assert x[..., 8:].std() > 3


def test_image_to_image_runs_only_the_last_steps() -> None:
    world = GaussianDenoiser(deviation=3.0)
    latent = 0.6 + 3 * start(1)
    seen: list[Snapshot] = []
    x = noised(world, latent, start(), steps=50, start=10)
    result = sample(world, x, None, steps=50, start=10, callback=seen.append)
    assert [s.t for s in seen] == list(range(181, 0, -20)) and {s.total for s in seen} == {10}
    assert (result - latent).abs().mean() < 0.3 * latent.std()
    assert torch.equal(sample(world, x, None, steps=50, start=0), x)
    with pytest.raises(UserError, match="last 51 of 50"):
        sample(world, x, None, steps=50, start=51)


def test_a_callback_may_stop_the_walk() -> None:
    def interrupt(step: Snapshot) -> None:
        if step.index == 2:
            raise KeyboardInterrupt

    world = GaussianDenoiser()
    with pytest.raises(KeyboardInterrupt):
        sample(world, start(), None, steps=10, callback=interrupt, progress=True)
    assert len(world.calls) == 3


def test_plms_asks_once_more_than_it_steps() -> None:
    world = GaussianDenoiser()
    sample(world, start(), None, steps=10, sampler="plms")
    assert len(world.calls) == 11
    assert sample(world, start(), None, steps=1, sampler="plms").isfinite().all()


def test_steps_that_do_not_divide_the_schedule_give_more() -> None:
    world = GaussianDenoiser()
    sample(world, start(), None, steps=30)
    assert len(world.calls) == 31


def test_what_does_not_fit_is_one_sentence() -> None:
    world = GaussianDenoiser()
    with pytest.raises(UserError, match=r"unknown sampler 'hein'; known: ddim, plms, euler"):
        sample(world, start(), None, steps=10, sampler="hein")
    with pytest.raises(UserError, match="divides 1000, such as 2"):
        sample(world, start(), None, steps=3)
    for sampler in SAMPLERS:
        with pytest.raises(UserError, match="between 1 and"):
            sample(world, start(), None, steps=0, sampler=sampler)
    with pytest.raises(UserError, match="'plms' has no eta"):
        sample(world, start(), None, steps=10, sampler="plms", eta=0.5)
    with pytest.raises(UserError, match="mask was given without x0"):
        sample(world, start(), None, steps=10, mask=torch.ones(1, 1, 16, 16))
    with pytest.raises(ValueError, match="ddim_eta must be 0"):
        PLMSSampler(world).sample(10, 4, SHAPE[1:], eta=0.5, verbose=False)


class Corrector:
    """Takes the noise estimate away and remembers when it was asked."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def modify_score(self, model: Any, eps: torch.Tensor, x: torch.Tensor, t: torch.Tensor, c: Any) -> torch.Tensor:
        self.seen.append(int(t[0]))
        return 0 * eps


def test_old_class_matches_the_function_and_serves_its_callbacks() -> None:
    world = GaussianDenoiser()
    indices: list[int] = []
    images: list[int] = []
    latent, kept = DDIMSampler(world).sample(
        S=20, batch_size=4, shape=SHAPE[1:], x_T=start(), verbose=False, log_every_t=5,
        callback=indices.append, img_callback=lambda x0, i: images.append(i),
    )  # fmt: skip
    assert torch.equal(latent, sample(world, start(), None, steps=20))
    assert indices == images == list(range(20))
    assert len(kept["x_inter"]) == len(kept["pred_x0"]) == 6  # the start, the first step, and 15, 10, 5, 0 steps left
    assert torch.equal(kept["x_inter"][-1], latent)

    corrector = Corrector()
    DDIMSampler(world).sample(20, 4, SHAPE[1:], x_T=start(), verbose=False, score_corrector=corrector)
    assert corrector.seen == list(range(951, 0, -50))


def test_old_class_noise_options() -> None:
    world = GaussianDenoiser()
    sampler = DDIMSampler(world)
    options: dict[str, Any] = {"S": 20, "batch_size": 4, "shape": SHAPE[1:], "x_T": start(), "verbose": False}
    options["eta"] = 1.0
    quiet, _ = sampler.sample(**options, temperature=0.0)
    dropped, _ = sampler.sample(**options, noise_dropout=1.0)
    torch.testing.assert_close(quiet, dropped)
    normals = [start(i) for i in range(1, 21)]
    given, _ = sampler.sample(**options, normals_sequence=normals)
    stream = iter(normals)
    torch.testing.assert_close(given, sample(world, start(), None, steps=20, eta=1.0, noise=lambda: next(stream)))
    assert (given - quiet).abs().max() > 0.1

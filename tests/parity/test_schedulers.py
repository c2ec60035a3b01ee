"""The same fixed denoiser through this project's samplers and diffusers' schedulers.

Both sides are set to the same timesteps. Differences are rounding: diffusers computes its tables in float32.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ldm.models.diffusion.samplers.ddim import DDIM
from ldm.models.diffusion.samplers.euler import Euler
from ldm.models.diffusion.sampling import sample
from ldm.modules.diffusionmodules.schedule import BetaSchedule
from tests.models.diffusion.gaussian_world import BETAS

diffusers = pytest.importorskip("diffusers")

SHAPE = (2, 4, 8, 8)
COMMON = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
DDIM_LIKE_OURS = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
PREDICTION = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}


class Fixed:
    """A smooth, nonlinear stand-in for a network, whose output depends on x and t."""

    device = torch.device("cpu")

    def __init__(self, parameterization: str) -> None:
        self.schedule = BetaSchedule.from_betas(BETAS, parameterization)

    def predict(self, x: torch.Tensor, t: torch.Tensor, cond: Any) -> torch.Tensor:
        phase = t.reshape(-1, 1, 1, 1).float() / 300
        return torch.tanh(0.7 * x + 0.2 * x.roll(1, dims=-1)) * torch.cos(phase) + 0.1 * torch.sin(3 * x)


def start() -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))


def their_sample(scheduler: Any, model: Fixed, x: torch.Tensor, steps: int, **options: Any) -> torch.Tensor:
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, t)
        out = model.predict(seen, torch.full((x.shape[0],), round(float(t))), None)
        x = scheduler.step(out, t, x, **options).prev_sample
    return x


@pytest.mark.parametrize("parameterization", list(PREDICTION))
@pytest.mark.parametrize("steps", [10, 50])
def test_ddim(steps: int, parameterization: str) -> None:
    scheduler = diffusers.DDIMScheduler(**COMMON, **DDIM_LIKE_OURS, prediction_type=PREDICTION[parameterization])
    model = Fixed(parameterization)
    theirs = their_sample(scheduler, model, start(), steps)
    torch.testing.assert_close(sample(model, start(), None, steps=steps), theirs, rtol=1e-4, atol=2e-4)


def test_ddim_with_noise() -> None:
    scheduler = diffusers.DDIMScheduler(**COMMON, **DDIM_LIKE_OURS)
    model = Fixed("eps")
    theirs = their_sample(scheduler, model, start(), 20, eta=0.7, generator=torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    ours = sample(
        model, start(), None, steps=20, eta=0.7, noise=lambda: torch.randn(SHAPE, generator=generator)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("parameterization", list(PREDICTION))
@pytest.mark.parametrize("steps", [10, 28])  # 999 / (steps - 1) is whole: diffusers keeps fractional timesteps
def test_euler(steps: int, parameterization: str) -> None:
    scheduler = diffusers.EulerDiscreteScheduler(
        **COMMON, timestep_spacing="linspace", prediction_type=PREDICTION[parameterization]
    )
    model = Fixed(parameterization)
    signal = float(model.schedule.signal(999))  # diffusers starts in the scale of sigma
    theirs = their_sample(scheduler, model, start() / signal, steps)
    torch.testing.assert_close(
        sample(model, start(), None, steps=steps, sampler="euler"), theirs, rtol=1e-4, atol=2e-4
    )


def test_euler_ancestral() -> None:
    scheduler = diffusers.EulerAncestralDiscreteScheduler(**COMMON, timestep_spacing="linspace")
    model = Fixed("eps")
    signal = float(model.schedule.signal(999))
    theirs = their_sample(scheduler, model, start() / signal, 28, generator=torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    ours = sample(
        model, start(), None, steps=28, sampler="euler_ancestral",
        noise=lambda: torch.randn(SHAPE, generator=generator),
    )  # fmt: skip
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=5e-4)


@pytest.mark.parametrize("parameterization", list(PREDICTION))
@pytest.mark.parametrize("steps", [8, 20])
def test_dpm_solver_2m(steps: int, parameterization: str) -> None:
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **COMMON, algorithm_type="dpmsolver++", solver_order=2, prediction_type=PREDICTION[parameterization]
    )
    model = Fixed(parameterization)
    theirs = their_sample(scheduler, model, start(), steps)
    ours = sample(model, start(), None, steps=steps, sampler="dpm_solver")
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=5e-4)


def test_plms() -> None:
    """diffusers' PNDM without Runge-Kutta steps: the same two calls for the first step, then multistep."""
    scheduler = diffusers.PNDMScheduler(**COMMON, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)
    model = Fixed("eps")
    theirs = their_sample(scheduler, model, start(), 20)
    ours = sample(model, start(), None, steps=20, sampler="plms")
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-4)


def test_ddim_goes_to_the_first_level_and_euler_to_none() -> None:
    schedule = Fixed("eps").schedule
    assert DDIM().levels(schedule, 10)[-1].noise > 0
    assert Euler().levels(schedule, 10)[-1].noise == 0


@pytest.mark.parametrize(
    ("ours", "theirs"), [("euler_karras", "EulerDiscreteScheduler"), ("heun_karras", "HeunDiscreteScheduler")]
)
def test_karras_levels_of_a_table(ours: str, theirs: str) -> None:
    """The same sigmas, timesteps between those of the table, and the same steps along them."""
    scheduler = getattr(diffusers, theirs)(**COMMON, use_karras_sigmas=True, timestep_spacing="linspace")
    model, x = Fixed("eps"), start()
    scheduler.set_timesteps(12)
    levels = model.schedule.levels(12, "karras")
    sigmas, told = (list(dict.fromkeys(values.tolist())) for values in (scheduler.sigmas, scheduler.timesteps))
    assert [level.sigma for level in levels] == pytest.approx(sigmas, rel=1e-3)
    assert [level.told for level in levels[:-1]] == pytest.approx(told, abs=0.6)
    y = x * float(scheduler.sigmas[0])
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(y, t)
        y = scheduler.step(model.predict(seen, torch.full((2,), float(t)), None), t, y).prev_sample
    begun = x * float(scheduler.sigmas[0]) / (1 + float(scheduler.sigmas[0]) ** 2) ** 0.5
    torch.testing.assert_close(sample(model, begun, None, steps=12, sampler=ours), y, rtol=1e-3, atol=2e-3)

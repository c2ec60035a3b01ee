"""Noise schedules against diffusers' tables and by their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ldm.modules.diffusionmodules.schedule import (
    BetaSchedule,
    make_beta_schedule,
    make_ddim_sampling_parameters,
    make_ddim_timesteps,
)
from ldm.util import UserError


@pytest.mark.parametrize(
    ("ours", "theirs"), [("linear", "scaled_linear"), ("sqrt_linear", "linear"), ("cosine", "squaredcos_cap_v2")]
)
def test_betas_match_diffusers(ours: str, theirs: str) -> None:
    diffusers = pytest.importorskip("diffusers")
    betas = make_beta_schedule(ours, 1000, 0.00085, 0.012)
    scheduler = diffusers.DDPMScheduler(1000, beta_start=0.00085, beta_end=0.012, beta_schedule=theirs)
    assert betas.dtype == np.float64 and betas.shape == (1000,)
    np.testing.assert_allclose(betas, scheduler.betas.numpy(), rtol=1e-5)


def test_sqrt_schedule() -> None:
    np.testing.assert_allclose(make_beta_schedule("sqrt", 3, 0.01, 0.09), [0.1, 0.05**0.5, 0.3])


def test_ddim_steps() -> None:
    assert make_ddim_timesteps("uniform", 10, 1000).tolist() == list(range(1, 1000, 100))
    assert len(make_ddim_timesteps("uniform", 30, 1000)) == 31
    quad = make_ddim_timesteps("quad", 10, 1000)
    assert quad[0] == 1 and len(quad) == 10 and (np.diff(np.diff(quad)) > 0).all() and quad[-1] in (800, 801)


def test_ddim_parameters_with_eta_one_are_the_ddpm_posterior() -> None:
    betas = make_beta_schedule("linear", 1000, 0.00085, 0.012)
    acp = np.cumprod(1 - betas)
    sigmas, _, alphas_prev = make_ddim_sampling_parameters(acp, np.arange(1, 1000), eta=1.0)
    np.testing.assert_array_equal(alphas_prev, acp[:-1])
    np.testing.assert_allclose(sigmas**2, betas[1:] * (1 - acp[:-1]) / (1 - acp[1:]), rtol=1e-8)
    assert np.all(make_ddim_sampling_parameters(acp, np.arange(1, 1000, 20), eta=0.0)[0] == 0)


@pytest.mark.parametrize("parameterization", ["eps", "v", "x0"])
def test_what_the_network_says_becomes_eps_and_x0(parameterization: str) -> None:
    schedule = BetaSchedule.from_betas(make_beta_schedule("linear", 1000, 0.00085, 0.012), parameterization)
    x0, eps, t = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4), torch.tensor([0, 500, 999])
    s, n = (f(t).float().reshape(3, 1, 1, 1) for f in (schedule.signal, schedule.noise))
    x = s * x0 + n * eps
    out = {"eps": eps, "x0": x0, "v": s * eps - n * x0}[parameterization]
    torch.testing.assert_close(schedule.to_eps(out, x, t), eps, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(schedule.to_x0(out, x, t), x0, rtol=1e-4, atol=1e-4)
    assert schedule.to_x0(out.bfloat16(), x, t).dtype == torch.float32
    one = schedule.to_eps(out[1:2], x[1:2], 500)
    torch.testing.assert_close(one, schedule.to_eps(out, x, t)[1:2])


def test_schedule_is_float64_on_the_cpu_even_under_meta() -> None:
    with torch.device("meta"):
        schedule = BetaSchedule.from_betas(make_beta_schedule("linear", 1000))
        assert schedule.alphas_cumprod.device.type == "cpu" and schedule.alphas_cumprod.dtype == torch.float64
        assert float(schedule.signal(10)) == pytest.approx(float(schedule.alphas_cumprod[10]) ** 0.5)


def test_what_does_not_fit_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"'sigmoid'; known: linear, cosine, sqrt_linear, sqrt"):
        make_beta_schedule("sigmoid", 1000)
    with pytest.raises(UserError, match="at least 1 step"):
        make_beta_schedule("linear", 0)
    with pytest.raises(UserError, match=r"visit timestep 1000 .* such as 500"):
        make_ddim_timesteps("uniform", 1000, 1000)
    with pytest.raises(UserError, match="known: uniform, quad"):
        make_ddim_timesteps("cubic", 10, 1000)
    with pytest.raises(UserError, match="unknown parameterization 'mu'"):
        BetaSchedule.from_betas(make_beta_schedule("linear", 10), "mu")

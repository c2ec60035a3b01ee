"""The posterior against torch.distributions."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from ldm.modules.distributions.distributions import DiagonalGaussianDistribution, normal_kl


def test_kl_and_likelihood_are_those_of_torch() -> None:
    torch.manual_seed(0)
    ours, other = (DiagonalGaussianDistribution(torch.randn(2, 6, 4, 4)) for _ in range(2))
    mine, theirs = Normal(ours.mean, ours.std), Normal(other.mean, other.std)
    standard = Normal(torch.zeros(()), torch.ones(()))
    torch.testing.assert_close(ours.kl(), kl_divergence(mine, standard).sum(dim=(1, 2, 3)))
    torch.testing.assert_close(ours.kl(other), kl_divergence(mine, theirs).sum(dim=(1, 2, 3)))
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(ours.nll(x), -mine.log_prob(x).sum(dim=(1, 2, 3)))
    expected = kl_divergence(mine, Normal(torch.tensor(0.5), torch.tensor(2.0)))
    torch.testing.assert_close(normal_kl(ours.mean, ours.logvar, 0.5, 2 * torch.tensor(2.0).log()), expected)


def test_a_seed_decides_the_sample_and_half_precision_becomes_single() -> None:
    posterior = DiagonalGaussianDistribution(torch.randn(1, 8, 4, 4, dtype=torch.bfloat16))
    draws = [posterior.sample(torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*draws) and draws[0].dtype is torch.float32
    assert not torch.equal(draws[0], posterior.sample(torch.Generator().manual_seed(4)))


def test_the_spread_of_samples_is_the_deviation() -> None:
    posterior = DiagonalGaussianDistribution(torch.cat([torch.full((1, 1, 64, 64), 2.0), torch.ones(1, 1, 64, 64)], 1))
    sample = posterior.sample(torch.Generator().manual_seed(0))
    assert sample.mean().item() == pytest.approx(2.0, abs=0.1)
    assert sample.std().item() == pytest.approx(posterior.std.mean().item(), rel=0.05)


def test_a_deterministic_posterior_has_no_spread() -> None:
    posterior = DiagonalGaussianDistribution(torch.randn(2, 8, 4, 4), deterministic=True)
    assert torch.equal(posterior.sample(), posterior.mode())
    assert posterior.kl().tolist() == [0, 0]


def test_log_variance_is_clamped() -> None:
    posterior = DiagonalGaussianDistribution(torch.tensor([0.0, 0.0, -100.0, 100.0]).view(1, 4, 1, 1))
    assert posterior.logvar.flatten().tolist() == [-30.0, 20.0]

"""The losses: their values on small examples, their balance, their names in public configurations."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
import torch
from torch import nn

from ldm.modules.distributions.distributions import DiagonalGaussianDistribution
from ldm.modules.losses import DummyLoss, LPIPSWithDiscriminator, ReconstructionLoss, VQLPIPSWithDiscriminator
from ldm.modules.losses.vqperceptual import codebook_use
from ldm.util import ConfigError, MissingPartError, instantiate_from_config

Example = tuple[torch.Tensor, nn.Conv2d, torch.Tensor, DiagonalGaussianDistribution]
SMALL: dict[str, Any] = {"perceptual_weight": 0.0, "disc_ndf": 8, "disc_num_layers": 1}


@pytest.fixture
def example() -> Example:
    torch.manual_seed(0)
    x = torch.rand(2, 3, 16, 16) * 2 - 1
    last = nn.Conv2d(3, 3, 3, padding=1)
    return x, last, last(x), DiagonalGaussianDistribution(torch.randn(2, 8, 4, 4))


def test_kl_loss_is_likelihood_plus_kl_before_the_discriminator(example: Example) -> None:
    x, last, y, posterior = example
    loss = LPIPSWithDiscriminator(disc_start=10, logvar_init=0.5, kl_weight=0.1, **SMALL)
    total, log = loss(x, y, posterior, 0, 9, last_layer=last.weight, split="val")
    error = (x - y).abs()
    expected = (error / torch.tensor(0.5).exp() + 0.5).sum() / 2 + 0.1 * posterior.kl().sum() / 2
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(log["val/rec_loss"], error.mean())
    assert log["val/disc_factor"] == 0 and not any(value.requires_grad for value in log.values())


def test_the_discriminator_pulls_as_hard_as_the_likelihood(example: Example) -> None:
    x, last, y, posterior = example
    loss = LPIPSWithDiscriminator(disc_start=0, kl_weight=0.0, disc_weight=0.5, **SMALL)
    total, log = loss(x, y, posterior, 0, 0, last_layer=last.weight)
    likelihood = (x - y).abs().sum() / 2
    adversarial = total - likelihood
    pulls = [torch.autograd.grad(part, last.weight, retain_graph=True)[0].norm() for part in (likelihood, adversarial)]
    torch.testing.assert_close(pulls[1], 0.5 * pulls[0], rtol=2e-2, atol=0)
    assert log["train/d_weight"] > 0


def test_the_discriminators_loss_leaves_the_autoencoder_alone(example: Example) -> None:
    x, last, y, posterior = example
    loss = LPIPSWithDiscriminator(disc_start=5, **SMALL)
    late, log = loss(x, y, posterior, 1, 5, last_layer=last.weight)
    early, _ = loss(x, y, posterior, 1, 4, last_layer=last.weight)
    assert early == 0 and late > 0 and set(log) == {"train/disc_loss", "train/logits_real", "train/logits_fake"}
    late.backward()
    assert last.weight.grad is None
    assert all(p.grad is not None for p in loss.discriminator.parameters())


@pytest.mark.parametrize("name", ["hinge", "vanilla"])
def test_discriminator_losses_are_tamings(name: str) -> None:
    from ldm.modules.losses.adversarial import DISCRIMINATOR_LOSSES

    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.25])
    expected = {
        "hinge": 0.5 * ((0 + 0.5) / 2 + (0 + 1.25) / 2),
        "vanilla": 0.5 * (-(torch.sigmoid(real).log().mean()) - (1 - torch.sigmoid(fake)).log().mean()).item(),
    }
    assert DISCRIMINATOR_LOSSES[name](real, fake).item() == pytest.approx(expected[name], rel=1e-5)


def test_vq_loss_adds_the_codebooks_and_logs_its_use(example: Example) -> None:
    x, last, y, _ = example
    loss = VQLPIPSWithDiscriminator(disc_start=5, codebook_weight=2.0, n_classes=4, pixel_loss="l2", **SMALL)
    indices = torch.tensor([0, 1, 0, 1])
    total, log = loss(x, y, torch.tensor(0.3), 0, 0, last_layer=last.weight, predicted_indices=indices)
    torch.testing.assert_close(total, (x - y).square().mean() + 0.6)
    assert log["train/perplexity"].item() == pytest.approx(2.0, rel=1e-5) and log["train/cluster_usage"] == 2
    assert codebook_use(torch.arange(4), 4)["perplexity"].item() == pytest.approx(4.0, rel=1e-5)


def test_reconstruction_loss_terms() -> None:
    x, y = torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8)
    y[..., ::2] = 1.0  # columns 1, 0, 1, 0, ...: mean difference 1/2, every slope 1, at half size a constant 1/2
    posterior = DiagonalGaussianDistribution(torch.randn(2, 8, 4, 4))
    nothing = {"l1_weight": 0.0, "kl_weight": 0.0}

    def value(**weights: Any) -> float:
        return ReconstructionLoss(**{**nothing, **weights})(x, y, posterior)[0].item()

    assert value(l1_weight=1.0) == pytest.approx(0.5)
    assert value(l2_weight=2.0) == pytest.approx(1.0)
    assert value(gradient_weight=1.0) == pytest.approx(1.0)
    assert value(l2_weight=1.0, scales=2) == pytest.approx((0.5 + 0.25) / 2)
    assert value(kl_weight=1.0) == pytest.approx((posterior.kl() / 64).mean().item())
    log = ReconstructionLoss()(x, y, posterior, split="val")[1]
    assert log["val/psnr"].item() == pytest.approx(10 * torch.log10(torch.tensor(8.0)).item())
    with_codes = ReconstructionLoss(l1_weight=0.0, codebook_weight=3.0)(x, y, torch.tensor(0.5))[0]
    assert with_codes.item() == pytest.approx(1.5)


def test_perceptual_distance_is_asked_for_only_when_it_counts(
    example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, last, y, posterior = example
    monkeypatch.setitem(sys.modules, "lpips", None)
    loss = LPIPSWithDiscriminator(disc_start=10, disc_ndf=8)
    with pytest.raises(MissingPartError, match="pip install lpips"):
        loss(x, y, posterior, 0, 0, last_layer=last.weight)

    class Distance(nn.Module):
        def __init__(self, net: str, verbose: bool) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return self.weight * (a - b).square().mean(dim=(1, 2, 3), keepdim=True)

    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=Distance))
    vq_loss = VQLPIPSWithDiscriminator(disc_start=10, disc_ndf=8, perceptual_weight=0.5)
    total, log = vq_loss(x, y, torch.tensor(0.0), 0, 0, last_layer=last.weight)
    torch.testing.assert_close(total, (x - y).abs().mean() + 0.5 * (x - y).square().mean())
    torch.testing.assert_close(log["train/p_loss"], (x - y).square().mean())
    assert not any("perceptual" in name for name, _ in vq_loss.named_parameters())


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("taming.modules.losses.vqperceptual.VQLPIPSWithDiscriminator", VQLPIPSWithDiscriminator),
        ("taming.modules.losses.vqperceptual.DummyLoss", DummyLoss),
        ("ldm.modules.losses.contperceptual.DummyLoss", DummyLoss),
        ("ldm.modules.losses.LPIPSWithDiscriminator", LPIPSWithDiscriminator),
        ("ldm.modules.losses.contperceptual.LPIPSWithDiscriminator", LPIPSWithDiscriminator),
        ("ldm.modules.losses.vqperceptual.VQLPIPSWithDiscriminator", VQLPIPSWithDiscriminator),
    ],
)
def test_public_names_build_these_losses_on_the_meta_device(target: str, kind: type) -> None:
    params = {} if kind is DummyLoss else {"disc_start": 50001, "disc_weight": 0.5, "disc_in_channels": 3}
    with torch.device("meta"):
        assert type(instantiate_from_config({"target": target, "params": params})) is kind


def test_wrong_names_and_weights_are_told() -> None:
    with pytest.raises(ConfigError, match="disc_loss 'wasserstein'"):
        LPIPSWithDiscriminator(disc_start=0, disc_loss="wasserstein")
    with pytest.raises(ConfigError, match="l2_weight"):
        ReconstructionLoss(l2_weight=-1.0)
    with pytest.raises(ConfigError, match="scales"):
        ReconstructionLoss(scales=0)
    with pytest.raises(ConfigError, match="DummyLoss"):
        DummyLoss()(torch.zeros(1))


def test_without_taming_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "taming.modules.discriminator.model", None)
    with pytest.raises(MissingPartError, match="pip install --no-deps taming-transformers"):
        LPIPSWithDiscriminator(disc_start=0)

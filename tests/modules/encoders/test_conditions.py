"""Conditions other than text: class labels, maps, and conditions given with noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from torch import Tensor, nn

from ldm.modules.distributions.distributions import DiagonalGaussianDistribution
from ldm.modules.encoders.modules import (
    ClassEmbedder,
    CLIPEmbeddingNoiseAugmentation,
    IdentityEncoder,
    LowScaleEncoder,
    SpatialRescaler,
)
from ldm.util import ConfigError, UserError

COSINE = {"timesteps": 1000, "beta_schedule": "squaredcos_cap_v2"}


def test_identity() -> None:
    x = object()
    assert IdentityEncoder().encode(x) is x


def test_class_labels_from_a_batch_or_alone() -> None:
    model = ClassEmbedder(embed_dim=6, n_classes=5, key="class_label")
    labels = torch.tensor([0, 4, 2])
    context = model.encode({"class_label": labels, "image": None})
    assert context.shape == (3, 1, 6)
    torch.testing.assert_close(context[:, 0], model.embedding.weight[labels])
    torch.testing.assert_close(model.encode(labels), context)
    torch.testing.assert_close(model(labels.float()), context)
    torch.testing.assert_close(model({"other": [1]}, key="other"), model(torch.tensor([1])))
    assert list(model.state_dict()) == ["embedding.weight"]


def test_class_labels_that_do_not_fit() -> None:
    model = ClassEmbedder(embed_dim=6, n_classes=5)
    with pytest.raises(UserError, match="between 0 and 4"):
        model(torch.tensor([5]))
    with pytest.raises(UserError, match="'class', it has: image"):
        model({"image": 1})


def test_class_labels_are_dropped_in_training_only() -> None:
    model = ClassEmbedder(embed_dim=2, n_classes=5, ucg_rate=0.25)
    labels = torch.zeros(400, dtype=torch.long)
    torch.manual_seed(0)
    context = model.train()(labels)[:, 0]
    none = (context == model.embedding.weight[4]).all(dim=1).sum().item()
    assert 70 <= none <= 130
    assert (model.eval()(labels)[:, 0] == model.embedding.weight[0]).all()


def test_spatial_rescaler() -> None:
    x = torch.rand(2, 5, 16, 8)
    assert torch.equal(SpatialRescaler(n_stages=0).encode(x), x)
    expected = F.avg_pool2d(x, 2)  # bilinear by one half, without aligned corners, is the mean of four
    torch.testing.assert_close(SpatialRescaler().encode(x), expected)
    model = SpatialRescaler(n_stages=2, in_channels=5, out_channels=3)
    assert {k: tuple(v.shape) for k, v in model.state_dict().items()} == {"channel_mapper.weight": (3, 5, 1, 1)}
    weight = model.get_parameter("channel_mapper.weight")
    mapped = torch.einsum("oc,bchw->bohw", weight[..., 0, 0], F.avg_pool2d(x, 4))
    torch.testing.assert_close(model.encode(x), mapped)
    assert SpatialRescaler(multiplier=2.0, method="nearest")(x).shape == (2, 5, 32, 16)
    with pytest.raises(ConfigError, match="lanczos"):
        SpatialRescaler(method="lanczos")


def augmentation(dim: int = 8, **more: Any) -> CLIPEmbeddingNoiseAugmentation:
    return CLIPEmbeddingNoiseAugmentation(noise_schedule_config=COSINE, timestep_dim=dim, **more)


def test_noise_augmentation_follows_diffusers_schedule() -> None:
    scheduler: Any = DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2")
    model = augmentation()
    torch.testing.assert_close(model.alphas_cumprod, scheduler.alphas_cumprod, rtol=1e-4, atol=1e-6)
    x, level = torch.randn(3, 8), torch.tensor([0, 500, 999])
    torch.manual_seed(5)
    noisy, features = model(x, noise_level=level)
    torch.manual_seed(5)
    expected = scheduler.add_noise(x, torch.randn(3, 8), level)
    torch.testing.assert_close(noisy, expected, rtol=1e-3, atol=1e-5)
    assert features.shape == (3, 8)
    frequencies = 10000 ** (-torch.arange(4) / 4)
    torch.testing.assert_close(features[1, :4], torch.cos(500 * frequencies), rtol=1e-3, atol=1e-3)


def test_noise_augmentation_statistics(tmp_path: Path) -> None:
    mean, std = torch.linspace(-2, 2, 8), torch.linspace(0.5, 3, 8)
    path = tmp_path / "stats.th"
    torch.save((mean, std), path)
    model = augmentation(clip_stats_path=str(path))
    torch.manual_seed(0)
    x = mean + std * torch.randn(20000, 8)
    noisy, _ = model(x, noise_level=torch.full((20000,), 600))
    torch.testing.assert_close(noisy.mean(0), mean, rtol=0, atol=0.1)
    torch.testing.assert_close(noisy.std(0), std, rtol=0.05, atol=0)
    signal = ((noisy - mean) * (x - mean)).mean(0) / std**2
    torch.testing.assert_close(signal, model.alphas_cumprod[600].sqrt().expand(8), rtol=0, atol=0.03)


def test_noise_levels_are_random_and_below_their_limit() -> None:
    model = augmentation(max_noise_level=10)
    _, features = model(torch.zeros(200, 8))
    levels = {round(float(level), 3) for level in torch.acos(features[:, 3].double()) * 1000}
    assert 5 <= len(levels) <= 10
    assert max(levels) < 10


def test_noise_augmentation_statistics_that_do_not_fit(tmp_path: Path) -> None:
    missing = augmentation(clip_stats_path="checkpoints/missing.th")  # building needs no file
    with pytest.raises(UserError, match=r"'checkpoints/missing.th'.*'clip_stats_path'"):
        missing(torch.zeros(1, 8))
    path = tmp_path / "stats.th"
    torch.save((torch.zeros(7), torch.ones(8)), path)
    with pytest.raises(UserError, match="two vectors of 8"):
        augmentation(clip_stats_path=str(path))(torch.zeros(1, 8))


class FlatAutoencoder(nn.Module):
    """A first stage whose latent is the picture made 8 times smaller, without spread."""

    def encode(self, x: Tensor) -> DiagonalGaussianDistribution:
        small = F.avg_pool2d(x, 8)
        return DiagonalGaussianDistribution(torch.cat([small, torch.full_like(small, -30.0)], dim=1))

    def decode(self, z: Tensor) -> Tensor:
        return F.interpolate(z, scale_factor=8.0)


def test_low_scale_encoder() -> None:
    target = f"{__name__}.FlatAutoencoder"
    model = LowScaleEncoder({"target": target}, max_noise_level=20, output_size=6, scale_factor=2.0)
    x = torch.rand(3, 3, 24, 24)
    z, level = model.encode(x)
    assert z.shape == (3, 3, 6, 6) and level.shape == (3,)
    assert (level < 20).all()
    clean, _ = model(x, noise_level=torch.zeros(3, dtype=torch.long))
    expected = 2 * F.interpolate(F.avg_pool2d(x, 8), size=6)
    torch.testing.assert_close(clean, expected, rtol=0, atol=0.06)  # level 0 already has variance 1e-4
    torch.testing.assert_close(model.decode(2 * x), F.interpolate(x, scale_factor=8.0))
    names = {k for k in model.state_dict() if not k.startswith("model.")}
    assert {"betas", "alphas_cumprod", "sqrt_recipm1_alphas_cumprod"} <= names

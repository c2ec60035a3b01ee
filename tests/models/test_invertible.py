"""The loss that makes DDIM inversion lead back: exact cases, and that training by it does what it is for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ldm.models.diffusion.ddpm import LatentDiffusion
from ldm.models.diffusion.invertible import invertible_loss, square_across_scales
from ldm.models.diffusion.samplers.ddim import invert
from ldm.models.diffusion.sampling import sample


class Network(nn.Module):
    """What it predicts depends on the latent by a 1x1 convolution, and on the timestep by a factor."""

    def __init__(self, **_: Any) -> None:
        super().__init__()
        self.mix = nn.Conv2d(4, 4, 1)
        self.time = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, **_: Any) -> Tensor:
        return self.mix(x) * (1 + self.time * timesteps[:, None, None, None] / 1000)


class Constant(nn.Module):
    """Sees the same noise everywhere, so that inversion is exact."""

    def __init__(self, **_: Any) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(0.7))

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, **_: Any) -> Tensor:
        return self.level.expand(x.shape)


def model(network: type[nn.Module], **params: Any) -> LatentDiffusion:
    here = f"{__name__}.{network.__name__}"
    stand_ins = "tests.models.stand_ins"
    return LatentDiffusion(
        first_stage_config={"target": f"{stand_ins}.PooledFirstStage"},
        cond_stage_config={"target": f"{stand_ins}.LetterEncoder"},
        cond_stage_key="caption",
        conditioning_key="crossattn",
        unet_config={"target": here},
        channels=4,
        use_ema=False,
        **params,
    )


def test_an_exactly_invertible_network_has_no_gap() -> None:
    network = model(Constant)
    z = torch.randn(2, 4, 8, 8)
    torch.manual_seed(0)
    _, parts = invertible_loss(network, z, None, weight=1.0, stride=20)
    assert parts["train/inversion_gap"] < 1e-10


def test_the_gap_is_that_of_one_inversion_step() -> None:
    network = model(Network, parameterization="v")
    z = torch.randn(3, 4, 8, 8)
    torch.manual_seed(5)
    t = torch.randint(0, 980, (3,))
    noise = torch.randn(z.shape)
    torch.manual_seed(5)
    loss, parts = invertible_loss(network, z, None, weight=2.0, stride=20)

    acp = network.schedule.alphas_cumprod.float()
    below, above = (acp[step][:, None, None, None] for step in (t, t + 20))
    x = below.sqrt() * z + (1 - below).sqrt() * noise
    v = network.apply_model(x, t)
    eps = below.sqrt() * v + (1 - below).sqrt() * x
    x0 = below.sqrt() * x - (1 - below).sqrt() * v
    moved = above.sqrt() * x0 + (1 - above).sqrt() * eps
    eps_above = above.sqrt() * network.apply_model(moved, t + 20) + (1 - above).sqrt() * moved
    difference = eps_above - eps
    by_hand = sum(
        (difference.unflatten(3, (-1, p)).unflatten(2, (-1, p)).mean((3, 5)).square().mean() * p * p)
        for p in (1, 2, 4, 8)
    ) / 4  # fmt: skip
    assert parts["train/inversion_gap"].item() == pytest.approx(by_hand.item(), rel=1e-4)
    plain, _ = network.p_losses(z, None, t, noise)
    assert loss.item() == pytest.approx(plain.item() + 2 * by_hand.item(), rel=1e-4)


def test_white_noise_counts_the_same_at_every_scale() -> None:
    noise = torch.randn(64, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    assert square_across_scales(noise).item() == pytest.approx(1.0, abs=0.05)
    assert square_across_scales(torch.ones(1, 1, 4, 4)).item() == pytest.approx((1 + 4 + 16) / 3)


def test_only_training_batches_without_prompts_have_the_error_in_their_loss() -> None:
    network = model(Network, inversion_weight=1.0)
    images = torch.rand(2, 8, 8, 3) * 2 - 1
    empty, told = ({"image": images, "caption": captions} for captions in (["", ""], ["", "a cat"]))
    assert "train/inversion_gap" in network.train().shared_step(empty)[1]
    assert "train/inversion_gap" not in network.shared_step(told)[1]
    assert "train/inversion_gap" not in network.eval().shared_step(empty)[1]


def inversion_error_after_training(weight: float, seed: int) -> float:
    """Mean square of what inverting and sampling back changes, after 200 steps on the loss with that weight."""
    torch.manual_seed(seed)
    network = model(Network).train()
    z = torch.randn(4, 4, 8, 8)
    optimizer = torch.optim.Adam(network.model.parameters(), lr=1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        invertible_loss(network, z, None, weight=weight, stride=50)[0].backward()
        optimizer.step()
    back = sample(network, invert(network, z, None, steps=20), None, steps=20)
    return (back - z).square().mean().item()


@pytest.mark.parametrize("seed", [1, 2])
def test_training_by_it_improves_inversion(seed: int) -> None:
    """Against the usual loss alone, which improves it as well: the same start, data, timesteps and noise."""
    usual = inversion_error_after_training(0.0, seed)
    assert inversion_error_after_training(5.0, seed) < 0.8 * usual
    assert inversion_error_after_training(-1.0, seed) > 1.1 * usual  # and its sign matters

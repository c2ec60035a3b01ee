"""The loss of what a model drew itself: exact values, which batches have it, and that training by it corrects."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ldm.models.diffusion.invertible import square_across_scales
from ldm.models.diffusion.lightning import with_empty_conditions
from ldm.models.diffusion.sampler_errors import LATENT, correcting_loss
from ldm.util import ConfigError, UserError
from tests.models.test_invertible import Constant, Network, model


def pictures(count: int = 4) -> dict[str, Any]:
    """A batch of pictures [4, 32, 32, 3]."""
    torch.manual_seed(1)
    return {"image": torch.rand(count, 32, 32, 3) * 2 - 1, "caption": ["a b"] * count}


@pytest.mark.parametrize("parameterization", ["v", "eps"])
def test_it_is_the_error_of_x0_over_scales(parameterization: str) -> None:
    network = model(Network, parameterization=parameterization)
    drawn, true = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8)
    torch.manual_seed(5)
    t = torch.randint(1, 600, (3,))
    noise = torch.randn(true.shape)
    torch.manual_seed(5)
    loss, parts = correcting_loss(network, drawn, true, None, weight=2.0, below=600)

    acp = network.schedule.alphas_cumprod.float()[t][:, None, None, None]
    x = acp.sqrt() * drawn + (1 - acp).sqrt() * noise
    output = network.apply_model(x, t)
    if parameterization == "v":
        x0 = acp.sqrt() * x - (1 - acp).sqrt() * output
    else:
        x0 = (x - (1 - acp).sqrt() * output) / acp.sqrt()
    assert loss.item() == pytest.approx(2.0 * square_across_scales(x0 - true).item(), rel=1e-4)
    assert parts["train/drawn_error"].item() == pytest.approx((x0 - true).square().mean().item(), rel=1e-4)


def test_only_batches_in_training_that_have_drawn_latents_have_it() -> None:
    network = model(Network, parameterization="v")
    network.train()
    batch = pictures()
    shape = network.get_latent(batch).shape
    assert "train/drawn_error" in network.shared_step({**batch, LATENT: torch.zeros(shape)})[1]
    assert "train/drawn_error" not in network.shared_step(batch)[1]
    with pytest.raises(UserError, match="of another model or size"):
        network.shared_step({**batch, LATENT: torch.zeros(4, 4, 2, 2)})
    network.eval()
    assert "val/loss" in network.shared_step({**batch, LATENT: torch.zeros(shape)})[1]


def test_a_network_learns_to_put_a_shade_right() -> None:
    torch.manual_seed(0)
    network = model(Network, parameterization="v", drawn_weight=1.0)
    network.train()
    batch = pictures()
    true = network.get_latent(batch)
    batch[LATENT] = true + 0.3  # always too bright
    optimiser = torch.optim.Adam(network.model.parameters(), lr=0.02)
    errors = []
    for _ in range(150):
        loss, parts = network.shared_step(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        errors.append(parts["train/loss"].item())
    assert sum(errors[-20:]) < 0.4 * sum(errors[:20])


def test_prompts_of_drawn_latents_are_not_dropped() -> None:
    dropped = {"caption": {"p": 1.0, "val": ""}}
    batch = {"caption": ["a cat", "a dog"], "image": torch.zeros(2, 4, 4, 3)}
    assert with_empty_conditions(batch, dropped)["caption"] == ["", ""]
    assert with_empty_conditions({**batch, LATENT: torch.zeros(2)}, dropped)["caption"] == ["a cat", "a dog"]


def test_timesteps_that_there_are_not_are_refused() -> None:
    for below in (1, 1001):
        with pytest.raises(ConfigError, match="drawn_below must be 2 to 1000"):
            model(Constant, drawn_below=below)

"""The loss of what a model drew itself: exact values, which batches have it, and that training by it corrects."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ldm.models.diffusion.invertible import square_across_scales
from ldm.models.diffusion.lightning import with_empty_conditions
from ldm.models.diffusion.sampler_errors import DRAWN, correcting_loss
from ldm.util import ConfigError, UserError
from ldm.world import drawn
from tests.models.test_invertible import Constant, Network, model


def pictures(count: int = 4) -> dict[str, Any]:
    """A batch of pictures [4, 32, 32, 3]."""
    torch.manual_seed(1)
    return {"image": torch.rand(count, 32, 32, 3) * 2 - 1, "caption": ["a b"] * count}


@pytest.mark.parametrize("parameterization", ["v", "eps"])
def test_it_is_the_error_of_x0_over_scales(parameterization: str) -> None:
    network = model(Network, parameterization=parameterization)
    made, true = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8)
    torch.manual_seed(5)
    t = torch.randint(1, 600, (3,))
    noise = torch.randn(true.shape)
    torch.manual_seed(5)
    loss, parts = correcting_loss(network, made, true, None, weight=2.0, below=600)

    acp = network.schedule.alphas_cumprod.float()[t][:, None, None, None]
    x = acp.sqrt() * made + (1 - acp).sqrt() * noise
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
    assert "train/drawn_error" in network.shared_step({**batch, DRAWN: torch.zeros(shape)})[1]
    assert "train/drawn_error" not in network.shared_step(batch)[1]
    with pytest.raises(UserError, match="of another model or size"):
        network.shared_step({**batch, DRAWN: torch.zeros(4, 4, 2, 2)})
    network.eval()
    assert "val/loss" in network.shared_step({**batch, DRAWN: torch.zeros(shape)})[1]


def test_timesteps_are_drawn_below_the_one_that_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    network = model(Network, parameterization="v", drawn_below=5)
    asked: list[int] = []
    plain = network.apply_model

    def watched(x: torch.Tensor, t: torch.Tensor, cond: Any) -> torch.Tensor:
        asked.extend(t.tolist())
        return plain(x, t, cond)

    monkeypatch.setattr(network, "apply_model", watched)
    network.train()
    batch = pictures(64)
    network.shared_step({**batch, DRAWN: torch.zeros(network.get_latent(batch).shape)})
    assert set(asked) == {1, 2, 3, 4}


def test_a_network_learns_to_put_a_shade_right() -> None:
    torch.manual_seed(0)
    network = model(Network, parameterization="v", drawn_weight=1.0, drawn_below=400)
    network.train()
    batch = pictures()
    true = network.get_latent(batch)
    batch[DRAWN] = true + 0.3  # always too bright
    optimiser = torch.optim.Adam(network.model.parameters(), lr=0.02)
    for _ in range(200):
        loss = network.shared_step(batch)[0]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    t = torch.full((4,), 150)
    x = network.q_sample(batch[DRAWN], t, torch.randn(true.shape))
    with torch.no_grad():
        x0 = network.schedule.to_x0(network.apply_model(x, t), x, t)
    assert abs((x0 - true).mean().item()) < 0.15, "it was 0.3"


def test_prompts_of_drawn_latents_are_not_dropped() -> None:
    dropped = {"caption": {"p": 1.0, "val": ""}}
    batch = {"caption": ["a cat", "a dog"], "image": torch.zeros(2, 4, 4, 3)}
    assert with_empty_conditions(batch, dropped)["caption"] == ["", ""]
    assert with_empty_conditions({**batch, DRAWN: torch.zeros(2)}, dropped)["caption"] == ["a cat", "a dog"]


def test_what_does_not_fit_is_refused_where_it_was_asked_for() -> None:
    model(Constant, timesteps=10)
    model(Constant, inversion_stride=0)
    for wrong in ({"drawn_below": 1}, {"drawn_below": 1001}, {"drawn_weight": -1.0}, {"inversion_weight": -1.0},
                  {"inversion_weight": 1.0, "inversion_stride": 1000}):  # fmt: skip
        with pytest.raises(ConfigError, match=list(wrong)[-1]):
            model(Constant, **wrong)


def test_the_world_has_the_key_that_the_model_knows() -> None:
    assert drawn.DRAWN == DRAWN

"""Training of Stable Video Diffusion's own classes: the temporal layers, and the temporal decoder."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from ldm.models.video_autoencoder import is_temporal_of_decoder
from ldm.modules.diffusionmodules.video_model import is_temporal
from ldm.util import instantiate_from_config
from tests.engines import engine_node
from tests.helpers import golden_case

FRAMES = 3


def clips(count: int = 2) -> torch.Tensor:
    return torch.rand(count, FRAMES, 16, 16, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_temporal_layers_of_the_engine_learn_alone() -> None:
    case = golden_case("svd_training")
    node = engine_node(case)
    here = "sgm.modules.diffusionmodules"
    sampler = {"target": f"{here}.sigma_sampling.EDMSampling", "params": {"p_mean": 1.0, "p_std": 1.6}}
    loss_params = {"n_frames": FRAMES, "sigma_sampler_config": sampler,
                   "loss_weighting_config": {"target": f"{here}.loss_weighting.VWeighting"}}  # fmt: skip
    loss_node = {"target": f"{here}.loss.StandardDiffusionLoss", "params": loss_params}
    node["params"] |= {"spatial": "frozen", "loss_fn_config": loss_node}
    model: Any = instantiate_from_config(node)
    model.load_state_dict(case.weights, strict=True)
    model.train()
    torch.manual_seed(0)
    batch = {"jpg": clips(), "fps": torch.tensor([8.0, 5.0]), "motion": torch.tensor([20.0, 200.0])}
    z, parts = model.get_input(batch)
    assert z.shape == (2 * FRAMES, 4, 8, 8) and parts["c_frames"].shape == (2 * FRAMES, FRAMES)
    assert not torch.equal(parts["c_adm"][0], parts["c_adm"][FRAMES])
    loss, said = model.shared_step(batch)
    loss.backward()
    assert torch.isfinite(loss) and "train/loss" in said
    network = model.model.diffusion_model
    learning = {name for name, p in network.named_parameters() if p.grad is not None and bool(p.grad.abs().sum() > 0)}
    assert learning and all(is_temporal(name) for name in learning)
    assert {id(p) for p in model.trained_parameters()} == {
        id(p) for name, p in network.named_parameters() if is_temporal(name)
    }


@pytest.mark.parametrize("trained", ["temporal", "decoder"])
def test_the_decoder_learns_and_the_encoder_stays(trained: str) -> None:
    node: Any = OmegaConf.to_container(golden_case("svd_decoder").config.model.params.first_stage_config)
    loss = {"target": "ldm.modules.losses.ReconstructionLoss", "params": {"kl_weight": 0.0}}
    node["params"] |= {"loss_config": loss, "frames": FRAMES, "trained": trained}
    torch.manual_seed(0)
    stage: Any = instantiate_from_config(node)
    before = {name: value.clone() for name, value in stage.state_dict().items()}
    optimizer = torch.optim.SGD(stage.trained_parameters(), lr=0.1)
    x = stage.get_input({"frames": clips()})
    assert x.shape == (2 * FRAMES, 3, 16, 16)
    for _ in range(2):  # a layer before one that begins as nothing learns from the second step on
        optimizer.zero_grad()
        stage._loss(x, stage.reconstruct(x), 0, "train", 0)[0].backward()
        optimizer.step()
    changed = {name for name, value in stage.state_dict().items() if not torch.equal(value, before[name])}
    assert any("time_stack" in name for name in changed) and not any(name.startswith("encoder.") for name in changed)
    others = {name for name in changed if not is_temporal_of_decoder(name)}
    assert bool(others) == (trained == "decoder")

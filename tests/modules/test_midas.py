"""The depth network under its released names, and what it is fed with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from ldm.modules.midas.api import MiDaSInference
from ldm.modules.midas.keys import from_transformers, name_table, to_transformers
from ldm.util import MissingPartError


@pytest.fixture(scope="module")
def depth_net() -> nn.Module:
    with torch.device("meta"):
        return MiDaSInference("dpt_hybrid")


def test_every_weight_has_a_released_name(depth_net: MiDaSInference) -> None:
    own = depth_net.model.state_dict()
    named = [part for parts in name_table().values() for part in parts]
    assert sorted(named) == sorted(own)
    state = depth_net.state_dict()
    assert set(state) == {f"model.{name}" for name in name_table()}
    assert state["model.pretrained.model.blocks.3.attn.qkv.weight"].shape == (2304, 768)
    assert state["model.pretrained.model.pos_embed"].shape == (1, 577, 768)
    assert state["model.scratch.refinenet4.out_conv.weight"].shape == (256, 256, 1, 1)
    assert state["model.pretrained.act_postprocess3.0.project.0.weight"].shape == (768, 1536)
    assert state["model.scratch.layer2_rn.weight"].shape == (256, 512, 3, 3)


def test_names_go_there_and_back(depth_net: MiDaSInference) -> None:
    own = {
        name: torch.randn(min(t.shape[0], 6), 1) if t.dim() > 1 else torch.randn(min(t.shape[0], 6))
        for name, t in depth_net.model.state_dict().items()
    }
    back = to_transformers(from_transformers(own))
    assert set(back) == set(own)
    assert all(torch.equal(back[name], own[name]) for name in own)


def test_released_weights_land_where_they_belong() -> None:
    with torch.device("meta"):
        network: Any = MiDaSInference()
        wrapped = nn.ModuleDict({"depth_model": network})
    marked = {
        key: torch.zeros_like(value, device="cpu")
        for key, value in wrapped.state_dict().items()
        if ".blocks.7." in key or "refinenet1" in key
    }
    qkv = marked["depth_model.model.pretrained.model.blocks.7.attn.qkv.bias"]
    qkv[768:1536] = 1
    marked["depth_model.model.scratch.refinenet1.out_conv.bias"].fill_(2)
    missing, unexpected = wrapped.load_state_dict(marked, strict=False, assign=True)
    assert not unexpected
    assert len(missing) == len(network.model.state_dict()) - len(to_transformers(marked)) - 2 * 2
    net = network.model
    attention = net.dpt.encoder.layer[7].attention.attention
    assert attention.key.bias.eq(1).all() and attention.query.bias.eq(0).all() and attention.value.bias.eq(0).all()
    assert net.neck.fusion_stage.layers[3].projection.bias.eq(2).all()


def test_pictures_of_any_size(depth_net: MiDaSInference) -> None:
    assert depth_net(torch.zeros(2, 3, 512, 768, device="meta")).shape == (2, 1, 384, 384)


def test_another_network_is_declined() -> None:
    with pytest.raises(MissingPartError, match="dpt_large"):
        MiDaSInference("dpt_large")

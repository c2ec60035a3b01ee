"""Modes by name, as a YAML file or a command line has them."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from ldm.control import AttentionMaps, FeatureStore, Inject, Mix, Observe, mode_by_name, modes_from_config, sites
from ldm.control.registry import known_modes
from ldm.util import UserError
from tests.control.networks import network

YAML = """
- {mode: inject, sites: "output_blocks.{2..4}", params: {q: content, kv: style, gamma: 0.6}}
- {mode: mix, sites: "5", params: {content: content, styles: [style, other], by: competition}}
- {mode: observe, sites: "*", kind: cross, resolution: 1, params: {maps: maps}}
"""


def test_names() -> None:
    assert set(known_modes()) >= {"plain", "save", "inject", "mix", "observe", "detail", "save_residual"}
    assert isinstance(mode_by_name("inject", gamma=0.5), Inject)
    assert isinstance(mode_by_name("ldm.control.inject.Inject"), Inject)


def test_nodes_of_a_yaml() -> None:
    unet, _ = network("unet_sd1")
    named: dict[str, Any] = {name: FeatureStore() for name in ("content", "style", "other")} | {"maps": AttentionMaps()}
    nodes: Any = OmegaConf.to_container(OmegaConf.create(YAML))
    modes = modes_from_config(unet, nodes, named)
    assert list(modes) == [sites(unet, "2,3,4"), sites(unet, "5"), sites(unet, "*", "cross", 1)]
    inject, mix, observe = modes.values()
    assert isinstance(inject, Inject) and isinstance(mix, Mix) and isinstance(observe, Observe)
    assert inject.q is named["content"] and inject.kv is named["style"] and inject.gamma == 0.6
    assert mix.content is named["content"] and mix.styles == [named["style"], named["other"]]
    assert observe.maps is named["maps"]


@pytest.mark.parametrize(
    ("node", "what"),
    [
        ({"mode": "injekt"}, "unknown attention mode 'injekt'; known: adaptive_inject, detail, inject, mix, observe"),
        ({"mode": "inject", "params": {"gama": 1}}, "no parameter 'gama'"),
        ({"mode": "inject", "params": {"gamma": 2}}, "gamma"),
        ({"mode": "inject", "sites": "output_blocks.99"}, "no self-attention matches"),
        ({"mode": "inject", "where": "x"}, "unknown key 'where'"),
        ({"sites": "2"}, "no key 'mode'"),
    ],
)
def test_nodes_that_do_not_fit(node: dict[str, Any], what: str) -> None:
    with pytest.raises(UserError, match=what):
        modes_from_config(network("unet_sd1")[0], [{"sites": "2", **node}])


def test_two_modes_at_one_place() -> None:
    with pytest.raises(UserError, match="two attention modes"):
        modes_from_config(network("unet_sd1")[0], [{"mode": "plain", "sites": "2"}, {"mode": "inject", "sites": [2]}])

"""Maps of attention: the right numbers, the right places, and a gradient."""

from __future__ import annotations

import pytest
import torch

from ldm.control import AttentionMaps, FeatureStore, Observe, Save, attention_mode, sites
from ldm.modules.diffusionmodules.levels import Level, at_level
from ldm.util import UserError
from tests.control.networks import network, output


def test_probabilities_without_a_change() -> None:
    unet, case = network("unet_sd1")
    where, plain = sites(unet, "*", kind="cross"), output("unet_sd1")
    maps, store = AttentionMaps(), FeatureStore(dtype=None)
    with attention_mode(unet, {where: Observe(maps)}), attention_mode(unet, {where: Save(store, "probs")}):
        torch.testing.assert_close(output("unet_sd1"), plain, rtol=1e-4, atol=1e-5)
    assert len(maps.probs) == len(where)
    for (site, t), probs in maps.probs.items():
        torch.testing.assert_close(probs, store.get(site, t, "probs"))
        height, width = maps.grids[site]
        assert height * width == probs.shape[2] and probs.shape[3] == case.inputs["context"].shape[1]


def test_heat_is_the_mean_of_what_was_seen() -> None:
    unet, _ = network("unet_sd1")
    where, maps = sites(unet, "output_blocks", kind="cross", resolution=1), AttentionMaps()
    with attention_mode(unet, {where: Observe(maps, timesteps=[1, 21, 41])}):
        for t in (1, 21, 61):
            output("unet_sd1", timestep=t)
    assert {t for _, t in maps.probs} == {1, 21}
    expected = torch.stack([probs[..., [2, 3]].sum(-1).mean(1) for probs in maps.probs.values()]).mean(0)
    torch.testing.assert_close(maps.heat([2, 3]).flatten(1), expected)
    one = maps.probs[where.names[0], 21][..., 2].mean(1)
    torch.testing.assert_close(maps.heat(2, sites=where.names[:1], timesteps=[21]).flatten(1), one)
    assert maps.heat(0, size=(32, 32)).shape == (2, 32, 32)
    words = torch.stack([maps.heat(word) for word in range(7)]).sum(0)
    torch.testing.assert_close(words, torch.ones_like(words))
    walked = AttentionMaps()
    with attention_mode(unet, {where: Observe(walked)}):
        for index, t in enumerate((21, 5)):  # timesteps are what the network is told, not the places in the walk
            with at_level(Level(t, 1.0, 0.0, index)):
                output("unet_sd1", timestep=t)
    one = walked.probs[where.names[0], 1][..., 2].mean(1)
    torch.testing.assert_close(walked.heat(2, sites=where.names[:1], timesteps=[5]).flatten(1), one)
    with pytest.raises(UserError, match="no key 7"):
        maps.heat(7)
    with pytest.raises(UserError, match="no attention was observed"):
        maps.heat(0, timesteps=[99])


def test_gradient_of_a_map() -> None:
    unet, case = network("unet_sd1")
    maps, where = AttentionMaps(), sites(unet, "output_blocks", kind="cross")
    x = case.inputs["x"].clone().requires_grad_()
    with attention_mode(unet, {where: Observe(maps)}):
        unet(x, torch.tensor([5, 5]), context=case.inputs["context"])
    maps.heat(3)[:, 4:8, 4:8].mean().backward()
    assert x.grad is not None
    gradient = x.grad.clone()
    assert float(gradient.abs().max()) > 0

    step = 1e-3
    moved = [AttentionMaps(), AttentionMaps()]
    for sign, one in zip((1, -1), moved, strict=True):
        with attention_mode(unet, {where: Observe(one)}), torch.no_grad():
            unet(x + sign * step * gradient / gradient.norm(), torch.tensor([5, 5]), context=case.inputs["context"])
    up, down = (one.heat(3)[:, 4:8, 4:8].mean() for one in moved)
    torch.testing.assert_close((up - down) / (2 * step), gradient.norm(), rtol=0.05, atol=0)

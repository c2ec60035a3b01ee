"""A mode acts where and while it should, and leaves nothing behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ldm.control import Call, FeatureStore, Inject, Plain, Save, SaveResidual, attention_mode, sites
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from ldm.util import UserError
from tests.control.networks import NAMES, network, output


def blind(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, call: Call, scale: float | None = None) -> torch.Tensor:
    """A mode after which a layer sees nothing."""
    return torch.zeros_like(q)


def everything(name: str) -> Any:
    return sites(network(name)[0], "*")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fails", [False, True])
def test_leaving_restores_every_bit(name: str, fails: bool) -> None:
    unet, _ = network(name)
    plain, state = output(name), {key: value.clone() for key, value in unet.state_dict().items()}
    attributes = {module: set(vars(module)) for module in unet.modules()}
    try:
        with attention_mode(
            unet, {everything(name): blind, sites(unet, "*", "residual"): SaveResidual(FeatureStore())}
        ):
            assert not torch.equal(output(name), plain)
            assert unet.state_dict().keys() == state.keys()
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert torch.equal(output(name), plain)
    assert all(torch.equal(value, state[key]) for key, value in unet.state_dict().items())
    assert all(set(vars(module)) == attributes[module] for module in unet.modules())
    assert not unet._forward_pre_hooks


@pytest.mark.parametrize("name", NAMES)
def test_a_mode_sees_what_the_layer_computes(name: str) -> None:
    unet, _ = network(name)
    plain, store = output(name), FeatureStore(dtype=None)
    where = everything(name)
    with attention_mode(unet, {where: Save(store, "q,k,v,sim,probs")}):
        assert torch.equal(output(name, timestep=500), plain)
        output(name, timestep=20)
    assert (
        store.timesteps == [20, 500] and store.sites == list(where) and store.names == ["q", "k", "v", "sim", "probs"]
    )
    for site in where:
        q, k, sim, probs = (store.get(site, 500, feature) for feature in ("q", "k", "sim", "probs"))
        torch.testing.assert_close(sim, q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5)
        torch.testing.assert_close(probs.sum(-1), torch.ones_like(probs[..., 0]))
        assert not torch.equal(q, store.get(site, 20, "q"))


def test_nesting_hands_from_the_inner_to_the_outer() -> None:
    unet, _ = network("unet_sd1")
    where, other = everything("unet_sd1"), FeatureStore(dtype=None)
    with attention_mode(unet, {where: Save(other)}):
        output("unet_sd1", seed=3)
    own, handed = FeatureStore(dtype=None), FeatureStore(dtype=None)
    inject = Inject(kv=other, T=1.0, gamma=0.0)
    with attention_mode(unet, {where: inject}):
        injected = output("unet_sd1")
    with (
        attention_mode(unet, {where: Save(handed)}),
        attention_mode(unet, {where: inject}),
        attention_mode(unet, {where: Save(own)}),
    ):
        assert torch.equal(output("unet_sd1"), injected)
    first = where.names[0]
    assert torch.equal(handed.get(first, 500, "k"), other.get(first, 500, "k"))
    assert not torch.equal(own.get(first, 500, "k"), other.get(first, 500, "k"))
    plain = output("unet_sd1")
    with attention_mode(unet, {where: inject}), attention_mode(unet, {where: Plain()}):
        assert torch.equal(output("unet_sd1"), plain)
    with attention_mode(unet, {where: blind}):
        with attention_mode(unet, {where: Plain()}):
            pass
        assert not torch.equal(output("unet_sd1"), plain)  # leaving the inner block leaves the outer mode in place


def test_several_timesteps_in_a_batch() -> None:
    unet, case = network("unet_sd1")
    call = (case.inputs["x"], torch.tensor([3, 500]), case.inputs["context"])
    with attention_mode(unet, {everything("unet_sd1"): blind}), torch.no_grad():
        unet(*call)  # a mode that does not ask does not mind
        unet(x=call[0], timesteps=call[1], context=call[2])
    with (
        attention_mode(unet, {everything("unet_sd1"): Save(FeatureStore())}),
        pytest.raises(UserError, match=r"one timestep for the whole batch, got \[3, 500\]"),
    ):
        unet(*call)


def test_sites_of_another_network() -> None:
    unet, _ = network("unet_uncond")
    plain = output("unet_uncond")
    both = {sites(unet, "*"): blind, everything("unet_sd1"): blind}
    with pytest.raises(UserError, match="no layer 'input_blocks"), attention_mode(unet, both):
        pass
    assert torch.equal(output("unet_uncond"), plain)


def test_autocast() -> None:
    unet, _ = network("unet_sd1")
    where, other, full = everything("unet_sd1"), FeatureStore(), FeatureStore(dtype=None)
    with attention_mode(unet, {where: Save(other)}):
        output("unet_sd1", seed=3)
    inject = Inject(q=other, kv=other)
    with attention_mode(unet, {where: inject}):
        expected = output("unet_sd1")
        with torch.autocast("cpu", torch.bfloat16), attention_mode(unet, {where: Save(full, "q,sim")}):
            half = output("unet_sd1")
    assert full.get(where.names[0], 500, "q").dtype is torch.bfloat16
    assert full.get(where.names[0], 500, "sim").dtype is torch.float32
    assert float((half - expected).abs().max()) < 0.1 * float(expected.abs().max())
    assert not torch.equal(half, expected)


def smallest() -> UNetModel:
    """One level, three attention layers: quick to compile."""
    torch.manual_seed(0)
    unet = UNetModel(
        model_channels=32, attention_resolutions=[1], num_res_blocks=1, channel_mult=[1], num_heads=2,
        use_spatial_transformer=True, context_dim=8,
    )  # fmt: skip
    for parameter in unet.parameters():  # layers that start at zero would hide what lies before them
        torch.nn.init.normal_(parameter, std=0.2)
    return unet.eval()


@torch.no_grad()
def test_compiling_without_a_mode_makes_one_graph() -> None:
    unet = smallest()
    x, t, context = torch.randn(2, 4, 4, 4), torch.tensor([500, 500]), torch.randn(2, 3, 8)
    graphs: list[Any] = []

    def count(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    fast: Any = torch.compile(unet, backend=count, fullgraph=True)  # a break would be an error
    plain = unet(x, t, context)
    torch.testing.assert_close(fast(x, t, context), plain)
    where, store = sites(fast, "output_blocks.1"), FeatureStore(dtype=None)
    assert where == sites(unet, "output_blocks.1")
    with attention_mode(fast, {where: Save(store)}):
        fast(x.flip(0), t, context)
    with attention_mode(fast, {where: Inject(store, store)}):
        changed = fast(x, t, context)
        assert torch.equal(changed, unet(x, t, context))
    assert not torch.allclose(changed, plain, rtol=1e-3)
    torch.testing.assert_close(fast(x, t, context), plain)
    assert len(graphs) == 1  # the first graph serves again

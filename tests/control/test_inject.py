"""Injection: what it computes, for which rows, and that it is plain attention where it should be."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ldm.control import FeatureStore, Inject, Joined, Rows, Save, attention_mode, sites
from ldm.control.seam import Call, Clock
from ldm.modules.attention import scaled_dot_product_attention
from ldm.util import UserError
from tests.control.networks import NAMES, network, output


def saved(name: str, **options: Any) -> FeatureStore:
    unet, _ = network(name)
    store = FeatureStore(dtype=None)
    with attention_mode(unet, {sites(unet, "*"): Save(store)}):
        output(name, **options)
    return store


def call_at(timestep: int = 5, tokens: int = 6) -> Call:
    clock = Clock()
    clock.publish(torch.nn.Identity(), (torch.zeros(1, 4, 1, tokens), torch.tensor([timestep])), {})
    return Call("a", scaled_dot_product_attention, clock)


def store_of(**features: torch.Tensor) -> FeatureStore:
    store = FeatureStore(dtype=None)
    for name, feature in features.items():
        store.put("a", 5, name, feature)
    return store


def test_the_formula() -> None:
    q, k, v = (torch.randn(2, 3, 6, 8) for _ in range(3))
    q_c, k_s, v_s = torch.randn(2, 3, 6, 8), torch.randn(1, 3, 9, 8), torch.randn(1, 3, 9, 8)
    mode = Inject(store_of(q=q_c), store_of(k=k_s, v=v_s), gamma=0.3, T=1.7)
    blend = 0.3 * q_c + 0.7 * q
    for scale in (None, 0.5):
        factor = 1.7 * (8**-0.5 if scale is None else scale)
        expected = (factor * blend @ k_s.transpose(-1, -2)).softmax(-1) @ v_s
        torch.testing.assert_close(mode(q, k, v, call=call_at(), scale=scale), expected)
    by_time = Inject(store_of(q=q_c), store_of(k=k_s, v=v_s), gamma={5: 0.3, 6: 1.0}, T=1.7)
    torch.testing.assert_close(by_time(q, k, v, call=call_at()), mode(q, k, v, call=call_at()))
    with pytest.raises(UserError, match="no value for level 7, where the timestep is 7"):
        Inject(gamma={5: 0.3})(q, k, v, call=call_at(7))
    elsewhere = Inject(store_of(q=q_c), timesteps=[6])
    assert torch.equal(elsewhere(q, k, v, call=call_at()), scaled_dot_product_attention(q, k, v))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("gamma", [0.0, 0.75])
def test_own_features_are_plain_attention(name: str, gamma: float) -> None:
    unet, _ = network(name)
    plain, own = output(name), saved(name)
    with attention_mode(unet, {sites(unet, "*"): Inject(q=own, kv=own, gamma=gamma, T=1.0)}):
        torch.testing.assert_close(output(name), plain, rtol=1e-4, atol=1e-5)
    with attention_mode(unet, {sites(unet, "*"): Inject(gamma=gamma, T=1.0)}):
        torch.testing.assert_close(output(name), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_the_batch_are_as_good_as_a_store(name: str) -> None:
    """Rows 0 and 1 are stylised with the features of rows 2, 3 and 4, which stay as they are."""
    unet, case = network(name)
    where = sites(unet, "output_blocks")
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(5, *case.inputs["x"].shape[1:], generator=generator)
    context = None if "context" not in case.inputs else case.inputs["context"][:1]

    def run(rows: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return unet(
                rows,
                torch.full((len(rows),), 5),
                context=None if context is None else context.expand(len(rows), -1, -1),
            )

    contents, style = FeatureStore(dtype=None), FeatureStore(dtype=None)
    with attention_mode(unet, {where: Save(contents, "q")}):
        plain_contents = run(x[2:4])
    with attention_mode(unet, {where: Save(style, "kv")}):
        plain_style = run(x[4:])
    with attention_mode(unet, {where: Inject(contents, style)}):
        expected = run(x[:2])
    with attention_mode(unet, {where: Inject(Rows(2, 4), Rows(4, 5), rows=Rows(0, 2))}):
        together = run(x)
    torch.testing.assert_close(together, torch.cat([expected, plain_contents, plain_style]), rtol=1e-4, atol=1e-4)
    middle = torch.cat([x[2:3], x[:2], x[3:]])  # the rows around them stay in their places
    with attention_mode(unet, {where: Inject(contents, style, rows=Rows(1, 3))}):
        found = run(middle)
    plain = torch.cat([plain_contents[:1], expected, plain_contents[1:], plain_style])
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-4)
    apart = Joined([contents.picture(0), contents.picture(1)])
    with attention_mode(unet, {where: Inject(apart, style)}):
        torch.testing.assert_close(run(x[:2]), expected)
    with (
        pytest.raises(UserError, match="features of 2 pictures were given for 1 rows"),
        attention_mode(unet, {where: Inject(contents, style)}),
    ):
        run(x[:1])
    with (
        pytest.raises(UserError, match="rows 1 to 3 were wanted of a batch of 2"),
        attention_mode(unet, {where: Inject(Rows(1, 3), style)}),
    ):
        run(x[:2])


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"gamma": 1.1}, "gamma.*between 0 and 1, got 1.1"),
        ({"gamma": float("nan")}, "gamma"),
        ({"gamma": {1: -0.1}}, "got -0.1"),
        ({"T": 0.0}, "above 0, got 0.0"),
        ({"T": float("nan")}, "above 0"),
        ({"T": float("inf")}, "above 0"),
    ],
)
def test_values_that_do_not_fit(options: dict[str, Any], what: str) -> None:
    with pytest.raises(UserError, match=what):
        Inject(**options)

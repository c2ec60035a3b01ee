"""The content's fine structure: the filter, its weight, and where it is added."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ldm.control import Detail, FeatureStore, Rows, SaveResidual, attention_mode, high_pass, sites
from ldm.util import UserError
from tests.control.networks import network, output
from tests.control.test_inject import call_at, store_of


@pytest.mark.parametrize("size", [(8, 8), (5, 6), (6, 7)])
def test_filter_written_out(size: tuple[int, int]) -> None:
    h = torch.randn(2, 3, *size)
    spectrum = torch.fft.fftshift(torch.fft.fft2(h.double()), dim=(-2, -1))
    kept = torch.zeros(size, dtype=torch.float64)
    for i in range(size[0]):
        for j in range(size[1]):  # the zero frequency lies at the middle of a shifted spectrum
            y, x = (2 * (index - n // 2) / n for index, n in ((i, size[0]), (j, size[1])))
            kept[i, j] = 1 - torch.exp(torch.tensor(-(x**2 + y**2) / (2 * 0.3**2), dtype=torch.float64))
    expected = torch.fft.ifft2(torch.fft.ifftshift(kept * spectrum, dim=(-2, -1))).real
    torch.testing.assert_close(high_pass(h, 0.3).double(), expected, rtol=1e-4, atol=1e-5)


def test_what_passes() -> None:
    flat, checks = torch.ones(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
    checks[..., ::2, 1::2] = checks[..., 1::2, ::2] = -1
    torch.testing.assert_close(high_pass(flat, 0.3), torch.zeros_like(flat), rtol=0, atol=1e-6)
    torch.testing.assert_close(high_pass(checks, 0.3), checks, rtol=1e-3, atol=0)


def test_the_formula() -> None:
    h, h_c = torch.randn(2, 4, 3, 6), torch.randn(1, 4, 3, 6)
    call = call_at()
    object.__setattr__(call, "inner", lambda h: h)
    out = Detail(store_of(residual=h_c), r=0.4)(h, call=call)
    cosine = (h * h_c).sum(1) / h.norm(dim=1) / h_c.norm(dim=1)
    torch.testing.assert_close(out, h + (1 - cosine)[:, None] * high_pass(h_c, 0.4))
    same = Detail(store_of(residual=h[:1]))(h[:1], call=call)
    torch.testing.assert_close(same, h[:1])
    beside = Detail(Rows(1, 2), rows=Rows(0, 1))(torch.cat([h[:1], h_c]), call=call)
    torch.testing.assert_close(beside, torch.cat([Detail(store_of(residual=h_c))(h[:1], call=call), h_c]))


@pytest.mark.parametrize("name", ["unet_sd1", "unet_uncond"])
def test_in_a_network(name: str) -> None:
    unet, _ = network(name)
    where, plain = sites(unet, "output_blocks", kind="residual"), output(name)
    own, other = FeatureStore(dtype=None), FeatureStore(dtype=None)
    for store, seed in ((own, None), (other, 3)):
        with attention_mode(unet, {where: SaveResidual(store)}):
            output(name, seed=seed)
    assert own.names == ["residual"] and own.sites == list(where)
    with attention_mode(unet, {where: Detail(own)}):
        torch.testing.assert_close(output(name), plain, rtol=1e-4, atol=1e-4)  # nothing has drifted
    with attention_mode(unet, {where: Detail(other)}):
        assert float((output(name) - plain).abs().max()) > 0.01
    with attention_mode(unet, {where: Detail(other, timesteps=[1])}):
        assert torch.equal(output(name), plain)


def test_residual_is_what_is_added_to_the_skip() -> None:
    unet, _ = network("unet_sd1")
    where, store, seen = sites(unet, "output_blocks.2", kind="residual"), FeatureStore(dtype=None), []
    block: Any = unet.get_submodule(where.names[0])
    hook = block.register_forward_hook(lambda module, args, out: seen.append((args[0], out)))
    with attention_mode(unet, {where: SaveResidual(store)}):
        output("unet_sd1")
    hook.remove()
    before, after = seen[0]
    torch.testing.assert_close(block.skip_connection(before) + store.get(where.names[0], 500, "residual"), after)


@pytest.mark.parametrize("r", [0.0, -1.0, float("nan"), float("inf")])
def test_radius(r: float) -> None:
    with pytest.raises(UserError, match="radius"):
        Detail(FeatureStore(), r=r)

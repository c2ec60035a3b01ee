"""Weights held in 16 bits: the numbers of a model with rounded weights, and what is kept for the backward pass."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from ldm.modules.cpu import held
from ldm.modules.cpu.frozen import FrozenConv2d, hold_weights
from ldm.modules.cpu.held import HeldLinear, computing_dtype
from tests.modules.cpu.test_frozen import frozen_unet, kept_by


def rounded(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy whose linear layers and convolutions have the weights that ``hold_weights`` leaves them."""
    made = copy.deepcopy(module)
    for layer in made.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            layer.weight.data = layer.weight.data.to(dtype).float()
    return made


def both_ways(layer: nn.Module, x: Tensor, *more: Tensor) -> list[Tensor]:
    """The output with and without a graph, and the gradient of a sum of it with fixed weights."""
    x = x.clone().requires_grad_()
    y = layer(x, *more)
    with torch.no_grad():
        again = layer(x, *more)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    return [y.detach(), again, torch.autograd.grad(y, x, weights)[0]]


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.dtype is other.dtype
        assert (one - other).abs().max() <= 1e-5 * other.abs().max()


LAYERS = [
    (nn.Linear(6, 40), (2, 5, 6)),
    (nn.Linear(6, 40, bias=False), (6,)),
    (nn.Conv2d(6, 40, 3, padding=1), (2, 6, 5, 7)),
    (nn.Conv2d(6, 40, 3, padding=1), (1, 6, 20, 20)),  # too many pixels for the matrix product
    (nn.Conv2d(6, 4, 1, stride=2), (1, 6, 8, 8)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("piece", [held.PIECE, 100])  # the matrix whole, and in pieces of which the last is smaller
def test_a_layer_computes_as_with_rounded_weights(
    layer: nn.Module, shape: tuple[int, ...], dtype: torch.dtype, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "PIECE", piece)
    torch.manual_seed(0)
    plain = nn.Sequential(copy.deepcopy(layer).requires_grad_(False))
    made = hold_weights(copy.deepcopy(plain), dtype)
    assert made.get_parameter("0.weight").dtype is dtype and list(made.state_dict()) == list(plain.state_dict())
    x = torch.randn(shape)
    assert_same(both_ways(made, x), both_ways(rounded(plain, dtype), x))
    assert not torch.equal(made(x), plain(x))


@pytest.mark.parametrize(("layer", "shape"), LAYERS)
def test_only_the_weight_as_it_is_held_is_kept(layer: nn.Module, shape: tuple[int, ...]) -> None:
    made = hold_weights(nn.Sequential(copy.deepcopy(layer).requires_grad_(False)), torch.bfloat16)
    kept = kept_by(made, torch.randn(shape))
    assert [t.data_ptr() for t in kept] == [made.get_parameter("0.weight").data_ptr()]


def test_under_autocast_it_is_computed_in_that_precision() -> None:
    made = hold_weights(nn.Sequential(nn.Linear(6, 4), nn.Conv2d(4, 4, 1)).requires_grad_(False), torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        y = made[1](made[0](torch.randn(3, 6, requires_grad=True))[:, :, None, None])
    assert y.dtype is torch.bfloat16 and torch.isfinite(y).all()


def test_whoever_learns_stays_as_it_is_and_whoever_begins_to_still_learns() -> None:
    layers = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.LayerNorm(3))
    layers[1:].requires_grad_(False)
    hold_weights(layers, torch.bfloat16)
    assert [type(layer) for layer in layers] == [nn.Linear, HeldLinear, nn.LayerNorm]
    assert [p.dtype for p in layers.parameters()].count(torch.bfloat16) == 1
    layers[1].requires_grad_(True)
    layers(torch.randn(2, 3)).sum().backward()
    gradient = layers.get_parameter("1.weight").grad
    assert gradient is not None and gradient.dtype is torch.bfloat16 and gradient.abs().sum() > 0


def test_a_whole_network() -> None:
    unet = frozen_unet()
    made = hold_weights(copy.deepcopy(unet), torch.float16)
    kinds = {type(layer) for layer in made.modules() if isinstance(layer, (nn.Linear, nn.Conv2d))}
    assert kinds == {HeldLinear, FrozenConv2d}
    assert {p.dtype for p in made.parameters() if p.dim() > 1} == {torch.float16}
    assert computing_dtype(made) is made.dtype is torch.float32
    inputs = torch.tensor([3, 700]), torch.randn(2, 5, 16)
    x = torch.randn(2, 4, 8, 8)
    assert_same(both_ways(made, x, *inputs), both_ways(rounded(unet, torch.float16), x, *inputs))

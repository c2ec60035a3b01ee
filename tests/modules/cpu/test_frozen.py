"""Layers that pass gradients on and have none: the same numbers as the plain ones, and what they do not keep."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from ldm.modules.attention import GEGLU
from ldm.modules.cpu import frozen as cpu_frozen
from ldm.modules.cpu.frozen import FrozenConv2d, LeanGEGLU, lean_where_frozen
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from ldm.modules.diffusionmodules.resblock import ResBlock
from ldm.modules.diffusionmodules.util import group_norm


def frozen(layer: nn.Module) -> nn.Module:
    return layer.requires_grad_(False)


def both_ways(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The output, and the gradient of a sum of it with fixed weights."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = layer(x)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    return y.detach(), torch.autograd.grad(y, x, weights)[0]


CONVOLUTIONS = [
    ((2, 6, 5, 7), {"kernel_size": 3, "padding": 1}),
    ((1, 6, 1, 1), {"kernel_size": 3, "padding": 1}),
    ((1, 6, 20, 20), {"kernel_size": 3, "padding": 1}),  # too many pixels for the matrix product
    ((1, 6, 8, 8), {"kernel_size": 3, "padding": 1, "stride": 2}),
    ((1, 6, 8, 8), {"kernel_size": 1}),
    ((1, 6, 8, 8), {"kernel_size": 3, "padding": 2, "dilation": 2, "groups": 2}),
    ((1, 6, 8, 8), {"kernel_size": 3, "padding": 1, "bias": False}),
]


@pytest.mark.parametrize(("shape", "options"), CONVOLUTIONS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_convolutions(shape: tuple[int, ...], options: dict, layout: torch.memory_format, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    plain = frozen(nn.Conv2d(6, 4, **options))
    made = lean_where_frozen(nn.Sequential(copy.deepcopy(plain).to(dtype)))[0]
    assert isinstance(made, FrozenConv2d)
    x = torch.randn(shape).to(dtype).contiguous(memory_format=layout)
    rounding = 1e-5 if dtype is torch.float32 else 2e-2
    for found, expected in zip(both_ways(made, x), both_ways(plain, x.float()), strict=True):
        assert found.dtype is dtype
        assert (found.float() - expected).abs().max() <= rounding * expected.abs().max()


@pytest.mark.parametrize("size", [8, 20])
def test_a_convolution_keeps_nothing_of_its_input(size: int) -> None:
    made = lean_where_frozen(nn.Sequential(frozen(nn.Conv2d(6, 4, 3, padding=1))))
    kept = kept_by(made, torch.randn(1, 6, size, size))
    assert [t.data_ptr() for t in kept] == [made.get_parameter("0.weight").data_ptr()]


def kept_by(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """What autograd keeps of a call; what is computed again is not among it."""
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        layer(x.requires_grad_())
    return kept


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_norm_and_the_activation_behind_it(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    plain = frozen(nn.Sequential(group_norm(64), nn.SiLU()))
    nn.init.normal_(plain.get_parameter("0.weight"))
    made = lean_where_frozen(copy.deepcopy(plain)).to(dtype)
    assert list(made.state_dict()) == list(plain.state_dict())
    x = torch.randn(2, 64, 5, 6).to(dtype).contiguous(memory_format=torch.channels_last)
    for found, expected in zip(both_ways(made, x), both_ways(plain.to(dtype), x), strict=True):
        assert torch.equal(found, expected)
    assert [t.data_ptr() for t in kept_by(made, x)] == [x.data_ptr()]


def test_a_norm_that_learns_or_that_the_timestep_follows_stays_apart() -> None:
    row = lean_where_frozen(nn.Sequential(group_norm(32), nn.SiLU()))
    assert isinstance(row[1], nn.SiLU)
    torch.manual_seed(0)
    block = ResBlock(32, 8, 0.0, use_scale_shift_norm=True).requires_grad_(False)
    nn.init.normal_(block.get_parameter("out_layers.3.weight"))
    x, emb = torch.randn(1, 32, 4, 4), torch.randn(1, 8)
    lean = lean_where_frozen(copy.deepcopy(block))
    assert isinstance(lean.in_layers[1], nn.Identity)
    torch.testing.assert_close(lean(x, emb), block(x, emb))


def test_whoever_learns_is_left_alone_and_whoever_begins_to_still_learns() -> None:
    odd = nn.Conv2d(3, 3, 1, padding_mode="circular")
    layers = nn.Sequential(nn.Conv2d(3, 3, 1), frozen(nn.Conv2d(3, 3, 1)), frozen(odd))
    lean_where_frozen(layers)
    assert [type(layer) for layer in layers] == [nn.Conv2d, FrozenConv2d, nn.Conv2d]
    layers[1].requires_grad_(True)
    layers(torch.randn(1, 3, 4, 4, requires_grad=True)).sum().backward()
    gradient = layers.get_parameter("1.weight").grad
    assert gradient is not None and gradient.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("again", [False, True])
def test_gated_layer(dtype: torch.dtype, again: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if again:
        monkeypatch.setattr(cpu_frozen, "MANY", 1)
    torch.manual_seed(0)
    plain = frozen(GEGLU(6, 8))
    made = lean_where_frozen(nn.Sequential(copy.deepcopy(plain).to(dtype)))[0]
    assert isinstance(made, LeanGEGLU) and list(made.state_dict()) == list(plain.state_dict())
    x = torch.randn(2, 5, 6).to(dtype)
    rounding = 1e-5 if dtype is torch.float32 else 2e-2
    for found, expected in zip(both_ways(made, x), both_ways(plain, x.float()), strict=True):
        assert (found.float() - expected).abs().max() <= rounding * expected.abs().max()
    assert ([t.data_ptr() for t in kept_by(made, x)] == [x.data_ptr()]) is again


def frozen_unet() -> UNetModel:
    """A small network with attention that does not learn, whose layers all do something."""
    torch.manual_seed(0)
    unet = UNetModel(
        model_channels=32, attention_resolutions=[1, 2], num_res_blocks=1, channel_mult=[1, 2], num_heads=2,
        use_spatial_transformer=True, context_dim=16,
    ).requires_grad_(False)  # fmt: skip
    for parameter in unet.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return unet


def test_a_whole_network() -> None:
    unet = frozen_unet()
    lean = lean_where_frozen(copy.deepcopy(unet))
    assert list(lean.state_dict()) == list(unet.state_dict())
    x, t, context = torch.randn(2, 4, 8, 8), torch.tensor([3, 700]), torch.randn(2, 5, 16)
    found = both_ways_of_context(lean, x, t, context)
    for value, expected in zip(found, both_ways_of_context(unet, x, t, context), strict=True):
        assert (value - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert torch.equal(lean(x, t, context), lean(x, t, context))


def both_ways_of_context(unet: nn.Module, x: Tensor, t: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
    context = context.clone().requires_grad_()
    y = unet(x, t, context)
    return y.detach(), torch.autograd.grad(y.square().sum(), context)[0]


def test_under_autocast_it_is_the_plain_layer() -> None:
    torch.manual_seed(0)
    plain = frozen(nn.Conv2d(6, 4, 3, padding=1))
    made = lean_where_frozen(nn.Sequential(copy.deepcopy(plain)))[0]
    x = torch.randn(1, 6, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        for found, expected in zip(both_ways(made, x), both_ways(plain, x), strict=True):
            assert torch.equal(found, expected)

"""Packed layers compute what the plain ones compute, and their state dicts are the same."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ldm.models.autoencoder import AutoencoderKL
from ldm.modules.attention import GEGLU, CrossAttention
from ldm.modules.cpu.packed import (
    PackedConv2d,
    PackedConvOverTime,
    PackedGEGLU,
    PackedLinear,
    PackedUpsample,
    fold_upsampling,
    has_kernels,
    pack_for_inference,
)
from ldm.modules.cpu.packed_weight import PackedWeight
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from ldm.modules.diffusionmodules.resblock import Upsample
from ldm.workflows.record import fingerprint
from tests.helpers import noted

PRECISIONS = {torch.float32: 1e-5, torch.bfloat16: 0.03}  # allowed difference, in units of the largest value


def small_unet() -> UNetModel:
    torch.manual_seed(0)
    unet = UNetModel(
        in_channels=4, out_channels=4, model_channels=32, attention_resolutions=[1, 2], num_res_blocks=1,
        channel_mult=[1, 2], num_heads=4, use_spatial_transformer=True, context_dim=24,
    )  # fmt: skip
    for parameter in unet.parameters():  # layers that start at zero would hide what lies before them
        nn.init.normal_(parameter, std=0.1)
    return unet.eval()


def over_time(channels: int, out_channels: int, **options: Any) -> nn.Conv3d:
    """A convolution over the frames of clips [B, C, T, H, W] alone."""
    return nn.Conv3d(channels, out_channels, (3, 1, 1), padding=(1, 0, 0), **options)


def small_autoencoder() -> AutoencoderKL:
    torch.manual_seed(0)
    shape = {
        "double_z": True, "z_channels": 4, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 32,
        "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
    }  # fmt: skip
    return AutoencoderKL(shape, {"target": "torch.nn.Identity"}, 4).eval()


def unet_inputs(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(2, 4, 16, 16).to(dtype), torch.tensor([3, 500]), torch.randn(2, 7, 24).to(dtype)


def assert_close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    assert actual.dtype is expected.dtype
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


@pytest.mark.parametrize("dtype", PRECISIONS)
@torch.no_grad()
def test_unet(dtype: torch.dtype) -> None:
    unet, inputs = small_unet().to(dtype), unet_inputs(dtype)
    packed = pack_for_inference(copy.deepcopy(unet))
    for _ in range(2):  # the first call packs
        assert_close(packed(*inputs), unet(*inputs), PRECISIONS[dtype])
    kinds = {type(layer) for layer in packed.modules()}
    quicker = {PackedConv2d, PackedLinear, PackedUpsample, PackedGEGLU}
    assert quicker <= kinds if has_kernels(dtype) else not quicker & kinds  # some processors know no bfloat16


@pytest.mark.parametrize("dtype", PRECISIONS)
@torch.no_grad()
def test_autoencoder(dtype: torch.dtype) -> None:
    plain = small_autoencoder().to(dtype)
    packed = pack_for_inference(copy.deepcopy(plain))
    image, latent = torch.randn(1, 3, 32, 32).to(dtype), torch.randn(1, 4, 16, 16).to(dtype)
    assert_close(packed.encode(image).mean, plain.encode(image).mean, PRECISIONS[dtype])
    assert_close(packed.decode(latent), plain.decode(latent), PRECISIONS[dtype])


@torch.no_grad()
def test_frames_stay_channels_last_and_other_films_than_the_first_are_the_plain_ones() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(over_time(8, 6), nn.SiLU(), over_time(6, 8)).requires_grad_(False)
    packed = pack_for_inference(copy.deepcopy(plain))
    for clips, frames, side in ((2, 4, 3), (1, 1, 5), (3, 2, 1)):
        rows = torch.randn(clips * frames, 8, side, side + 1).to(memory_format=torch.channels_last)
        volumes = rows.unflatten(0, (clips, frames)).transpose(1, 2)
        out = packed(volumes)
        assert_close(out, plain(volumes), 1e-5)
        assert out.transpose(1, 2).flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    assert {type(layer) for layer in packed} == {PackedConvOverTime, nn.SiLU}
    cube = pack_for_inference(nn.Sequential(nn.Conv3d(8, 6, 3, padding=1), nn.Conv3d(8, 6, (3, 1, 1), padding=1)))
    assert {type(layer) for layer in cube} == {nn.Conv3d}, "such a layer looks at neighbouring places, too"


@torch.no_grad()
def test_other_sizes_than_the_first() -> None:
    unet = small_unet()
    packed = pack_for_inference(copy.deepcopy(unet))
    for batch, height, width in ((1, 16, 16), (3, 8, 24), (1, 32, 16)):
        x, t, context = torch.randn(batch, 4, height, width), torch.arange(batch), torch.randn(batch, 5, 24)
        assert_close(packed(x, t, context), unet(x, t, context), 1e-5)


@torch.no_grad()
def test_state_dict_is_that_of_the_plain_layers() -> None:
    unet = small_unet()
    expected = {key: value.clone() for key, value in unet.state_dict().items()}
    packed = pack_for_inference(unet)
    packed(*unet_inputs(torch.float32))
    state = packed.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[key], expected[key]) for key in expected)


@torch.no_grad()
def test_weights_loaded_into_a_packed_network_are_used() -> None:
    packed = pack_for_inference(small_unet())
    inputs = unet_inputs(torch.float32)
    packed(*inputs)
    other = small_unet()
    for parameter in other.parameters():
        parameter.mul_(1.1)
    packed.load_state_dict(other.state_dict())
    assert_close(packed(*inputs), other(*inputs), 1e-5)


@torch.no_grad()
def test_change_of_precision_and_copies_after_packing() -> None:
    unet, inputs = small_unet(), unet_inputs(torch.float32)
    packed = pack_for_inference(copy.deepcopy(unet))
    packed(*inputs)
    assert_close(copy.deepcopy(packed)(*inputs), unet(*inputs), 1e-5)
    assert_close(packed.double()(*(x.double() if x.is_floating_point() else x for x in inputs)).float(),
                 unet(*inputs), 1e-5)  # fmt: skip


def test_gradients_of_the_input_are_those_of_the_plain_network() -> None:
    unet = small_unet().requires_grad_(False)
    packed = pack_for_inference(copy.deepcopy(unet))
    x, t, context = unet_inputs(torch.float32)
    with torch.no_grad():
        packed(x, t, context)
    grads = []
    for network in (packed, unet):
        wanted = x.clone().requires_grad_()
        network(wanted, t, context).square().sum().backward()
        assert wanted.grad is not None
        grads.append(wanted.grad)
    assert_close(grads[0], grads[1], 1e-4)


@torch.no_grad()
def test_attention_modes_and_hooks_still_work(monkeypatch: pytest.MonkeyPatch) -> None:
    unet = small_unet()
    seen = []
    unet.get_submodule("input_blocks.0.0").register_forward_hook(lambda module, args, output: seen.append("hook"))
    packed = pack_for_inference(unet)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, scale: float | None = None) -> torch.Tensor:
        seen.append("attend")
        return torch.zeros_like(q)

    monkeypatch.setattr(CrossAttention, "attend", staticmethod(attend))
    packed(*unet_inputs(torch.float32))
    assert seen.count("hook") == 1
    assert seen.count("attend") == sum(isinstance(layer, CrossAttention) for layer in packed.modules())


def test_folded_weight_is_the_convolution_of_the_doubled_picture() -> None:
    torch.manual_seed(0)
    weight, bias, x = torch.randn(5, 3, 3, 3), torch.randn(5), torch.randn(2, 3, 7, 6)
    expected = F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, bias, padding=1)
    actual = F.conv_transpose2d(x, fold_upsampling(weight), bias, stride=2, padding=1)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_packed_stays() -> None:
    layers = nn.Sequential(
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), nn.Linear(4, 4).double(), nn.Conv1d(4, 4, 1)
    )
    before = list(layers)
    assert list(pack_for_inference(layers)) == before


def test_a_gradient_for_the_input_is_that_of_the_plain_network() -> None:
    unet, (x, t, context) = small_unet().requires_grad_(False), unet_inputs(torch.float32)
    packed = pack_for_inference(copy.deepcopy(unet))
    packed(x, t, context)
    gradients = []
    for network in (packed, unet):
        leaf = context.clone().requires_grad_(True)
        network(x, t, leaf).square().sum().backward()
        assert leaf.grad is not None
        gradients.append(leaf.grad)
    assert_close(gradients[0], gradients[1], 1e-4)


def test_a_bias_that_learns_has_its_gradient() -> None:
    torch.manual_seed(0)
    plain, x = nn.Linear(6, 4), torch.randn(3, 6)
    plain.weight.requires_grad_(False)
    packed = pack_for_inference(nn.Sequential(copy.deepcopy(plain)))
    with torch.no_grad():
        packed(x)
    assert packed[0].is_packed
    for network in (packed, plain):
        network(x).square().sum().backward()
    torch.testing.assert_close(packed[0].bias.grad, plain.bias.grad)


@torch.no_grad()
def test_autocast_finds_the_plain_path() -> None:
    packed, inputs = pack_for_inference(small_unet()), unet_inputs(torch.float32)
    layer = next(layer for layer in packed.modules() if isinstance(layer, PackedLinear))
    packed(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.zeros(1, layer.in_features)).dtype is torch.bfloat16


# ---- weights that change --------------------------------------------------------------------------------------------


class Doubled(nn.Module):
    """A parametrisation."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


def _by_assignment(layer: Any) -> None:
    layer.weight = nn.Parameter(2 * layer.weight)


def _by_data(layer: Any) -> None:
    layer.weight.data = 2 * layer.weight.data


def _in_place(layer: Any) -> None:
    with torch.no_grad():
        layer.weight.mul_(2)


def _in_place_of_data(layer: Any) -> None:
    layer.weight.data *= 2


def _through_a_view(layer: Any) -> None:
    half = len(layer.weight) // 2
    layer.weight.data[:half] *= 2
    layer.weight.detach()[half:].mul_(2)


def _by_loading(layer: Any) -> None:
    layer.load_state_dict({**layer.state_dict(), "weight": 2 * layer.state_dict()["weight"]})


def _by_loading_and_assigning(layer: Any) -> None:
    layer.load_state_dict({**layer.state_dict(), "weight": 2 * layer.state_dict()["weight"]}, assign=True)


def _in_the_state_dict(layer: Any) -> None:
    layer.state_dict()["weight"].mul_(2)


def _by_a_parametrisation(layer: Any) -> None:
    nn.utils.parametrize.register_parametrization(layer, "weight", Doubled())


def _as_an_optimiser_does(layer: Any) -> None:
    weight = dict(layer.named_parameters())["weight"]
    torch._foreach_add_([weight], [weight.detach().clone()])


def _with_an_out_argument(layer: Any) -> None:
    torch.add(layer.weight.detach(), layer.weight.detach(), out=layer.weight)


def _by_copying(layer: Any) -> None:
    nn.utils.vector_to_parameters(2 * layer.weight.flatten(), [layer.weight])


def _by_a_hook(layer: Any) -> None:
    """What some adapters do, which leave the weight alone."""
    layer.register_forward_hook(lambda layer, args, out: 2 * out - _shaped(layer.bias, out))


def _by_another_forward(layer: Any) -> None:
    before = layer.forward
    layer.forward = lambda x: 2 * before(x) - _shaped(layer.bias, before(x))


def _shaped(bias: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    return bias.reshape(-1, *[1] * (out.dim() - 2)) if out.dim() > 3 else bias


EDITS = [
    _by_assignment, _by_data, _in_place, _in_place_of_data, _through_a_view, _by_loading, _by_loading_and_assigning,
    _in_the_state_dict, _by_a_parametrisation, _as_an_optimiser_does, _with_an_out_argument, _by_copying, _by_a_hook,
    _by_another_forward,
]  # fmt: skip


PACKED = ["linear", "conv", "over_time", "geglu", "upsample"]


def editable() -> dict[str, tuple[nn.Module, str, torch.Tensor]]:
    """For every kind of packed layer: a network around a plain one, the name of what has the weight, and an input."""
    torch.manual_seed(0)
    return {
        "linear": (nn.Sequential(nn.Linear(6, 4)), "0", torch.randn(3, 6)),
        "conv": (nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)), "0", torch.randn(2, 3, 5, 5)),
        "over_time": (nn.Sequential(over_time(6, 4, groups=2)), "0", torch.randn(2, 6, 5, 4, 3)),
        "geglu": (nn.Sequential(GEGLU(6, 4)), "0.proj", torch.randn(3, 6)),
        "upsample": (nn.Sequential(Upsample(4, use_conv=True)), "0.conv", torch.randn(1, 4, 5, 5)),
    }


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("kind", PACKED)
def test_an_edited_weight_is_used(kind: str, edit: Callable[[nn.Module], None]) -> None:
    plain, name, x = editable()[kind]
    packed = pack_for_inference(copy.deepcopy(plain))
    with torch.no_grad():
        unedited = packed(x)
    assert any(type(p) is PackedWeight for p in packed.parameters()), "the test is about packed weights"
    for network in (packed, plain.requires_grad_(False)):
        edit(network.get_submodule(name))
    with torch.no_grad():
        for _ in range(2):
            assert_close(packed(x), plain(x), 1e-5)
    assert not torch.allclose(packed(x), unedited, atol=1e-2)


@pytest.mark.parametrize("kind", PACKED)
@torch.no_grad()
def test_what_was_taken_before_the_first_call_or_between_two_still_changes_it(kind: str) -> None:
    plain, name, x = editable()[kind]
    packed = pack_for_inference(copy.deepcopy(plain))
    of_plain = plain.get_parameter(f"{name}.weight")
    held = dict(packed.named_parameters())[name + ".weight"]
    view = held.data
    packed(x)
    view.mul_(2)
    of_plain.mul_(2)
    assert_close(packed(x), plain(x), 1e-5)
    del view
    packed(x)
    assert type(held) is PackedWeight, "packed again when nobody holds a view"
    held.mul_(2)
    of_plain.mul_(2)
    assert_close(packed(x), plain(x), 1e-5)
    packed(x)
    assert held is dict(packed.named_parameters())[name + ".weight"] and type(held) is PackedWeight


@torch.no_grad()
def test_looking_at_a_packed_weight() -> None:
    plain, name, x = editable()["geglu"]
    packed = pack_for_inference(copy.deepcopy(plain))
    packed(x)
    weight: Any = packed.get_parameter(f"{name}.weight")
    expected = plain.get_parameter(f"{name}.weight")
    weight.remark = "kept"
    about = (weight.shape, weight.dtype, weight.device, weight.numel(), weight.requires_grad, weight.dim())
    assert about == (expected.shape, expected.dtype, expected.device, expected.numel(), False, 2)
    assert type(weight) is PackedWeight, "none of these needs the values"
    assert isinstance(weight, nn.Parameter) and torch.equal(weight, expected) and type(weight) is nn.Parameter
    assert vars(weight) == {"remark": "kept"}, "nothing of the packed one is left on it"
    for copied in (copy.deepcopy, copy.copy, lambda network: pickle.loads(pickle.dumps(network))):
        packed(x)
        assert type(weight) is PackedWeight
        assert torch.equal(copied(packed)(x), packed(x))
        assert torch.equal(copied(weight), expected)


@torch.no_grad()
def test_a_fingerprint_leaves_packed_weights_packed() -> None:
    plain, name, x = editable()["geglu"]
    packed = pack_for_inference(copy.deepcopy(plain))
    packed(x)
    assert fingerprint(packed) == fingerprint(plain)
    assert type(packed.get_parameter(f"{name}.weight")) is PackedWeight


def test_a_weight_that_is_to_learn_is_not_packed() -> None:
    plain, name, x = editable()["linear"]
    packed = pack_for_inference(copy.deepcopy(plain))
    with torch.no_grad():
        packed(x)
    packed.requires_grad_(True)
    packed(x).square().sum().backward()
    plain(x).square().sum().backward()
    of_packed, of_plain = (network.get_parameter(f"{name}.weight").grad for network in (packed, plain))
    assert of_packed is not None
    torch.testing.assert_close(of_packed, of_plain)


@torch.no_grad()
def test_packing_saves_the_plain_values() -> None:
    plain, name, x = editable()["geglu"]
    packed = pack_for_inference(plain)
    storage = weakref.ref(packed.get_parameter(f"{name}.weight").untyped_storage())
    packed(x)
    gc.collect()
    assert storage() is None


@pytest.mark.parametrize("kind", PACKED)
@torch.no_grad()
def test_the_numbers_do_not_depend_on_who_holds_the_weight(kind: str) -> None:
    """Nor on the input that a layer sees first after its weight was used."""
    packed, _, x = editable()[kind]
    pack_for_inference(packed)
    expected = packed(x)
    held = packed.state_dict()
    assert torch.equal(packed(x), expected)
    del held
    packed(torch.cat([x, x, x]))
    assert torch.equal(packed(x), expected)


@pytest.mark.parametrize("kind", ["convolutions", "over_time", "linear"])
def test_gradients_keep_no_plain_weights(kind: str) -> None:
    """Through packed layers the input's gradient is the plain layers', and nothing as large as a weight is kept."""
    torch.manual_seed(0)
    layers: list[Any] = [nn.Conv2d(32, 64, 3, padding=1), nn.Conv2d(64, 32, 3, stride=2, padding=1)]
    x = torch.randn(1, 32, 8, 8)
    if kind == "over_time":
        layers, x = [over_time(32, 64), over_time(64, 32)], torch.randn(1, 32, 6, 4, 4)
    if kind == "linear":
        layers, x = [nn.Linear(64, 256), nn.Linear(256, 64)], torch.randn(2, 5, 64)
    module = nn.Sequential(*layers).eval().requires_grad_(False)
    wanted = torch.autograd.grad(module(x.requires_grad_()).square().sum(), x)[0]
    packed: Any = pack_for_inference(copy.deepcopy(module))
    with torch.no_grad():
        packed(x.detach())
    assert all(layer.is_packed for layer in packed)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: noted(kept, t.numel()) and t, lambda t: t):
        loss = packed(x).square().sum()
    torch.testing.assert_close(torch.autograd.grad(loss, x)[0], wanted, rtol=1e-4, atol=1e-4)
    assert all(layer.is_packed for layer in packed)
    weights = [value for name, value in module.named_parameters() if name.endswith("weight")]
    assert max(kept) < min(weight.numel() for weight in weights)

"""The UNet of films against reference numbers, diffusers and itself without its temporal layers."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from ldm.control.sites import sites
from ldm.modules.diffusionmodules.clips import Clips
from ldm.modules.diffusionmodules.util import timestep_embedding
from ldm.modules.diffusionmodules.video_model import TEMPORAL, VideoUNet, conv_over_time
from ldm.modules.video_attention import SpatialVideoTransformer, TemporalOptions
from ldm.util import ConfigError
from tests.helpers import GoldenCase, golden_case

SMALL: dict[str, Any] = {
    "in_channels": 8, "out_channels": 4, "model_channels": 32, "channel_mult": [1, 2], "num_res_blocks": 1,
    "attention_resolutions": [1], "num_head_channels": 16, "context_dim": 24, "num_classes": "sequential",
    "adm_in_channels": 24, "use_linear_in_transformer": True, "use_spatial_context": True,
    "video_kernel_size": [3, 1, 1],
}  # fmt: skip


def golden_unet(case: GoldenCase) -> VideoUNet:
    unet = VideoUNet(**case.config.model.params.network_config.params)
    prefix = case.args["prefix"]
    unet.load_state_dict({k.removeprefix(prefix): v for k, v in case.weights.items() if k.startswith(prefix)})
    return unet.eval()


def remember(seen: dict[str, torch.Tensor], name: str, module: Any, args: Any, output: torch.Tensor) -> None:
    seen.setdefault(name, output)


def test_golden() -> None:
    case = golden_case("svd_unet")
    unet = golden_unet(case)
    seen: dict[str, torch.Tensor] = {}
    places = {"middle": "middle_block", "first_res_block": "input_blocks.1.0", "middle_transformer": "middle_block.1"}
    for name, place in places.items():
        unet.get_submodule(place).register_forward_hook(partial(remember, seen, name))
    inputs = case.inputs
    for kind, out in (("video", "v"), ("images", "v_images"), ("mixed", "v_mixed")):
        with torch.no_grad():
            v = unet(inputs["x"], inputs["t"], context=inputs["context"], y=inputs["y"],
                     num_video_frames=5, image_only_indicator=inputs[f"indicator_{kind}"])  # fmt: skip
        case.assert_close(out, v)
    for name, value in seen.items():
        case.assert_close(name, value)
    case.assert_close("frame_embedding", timestep_embedding(torch.arange(5), case.args["model_channels"]))


def test_it_begins_as_the_unet_of_pictures() -> None:
    """Before training, and where every frame is a picture on its own, the temporal layers say nothing."""
    torch.manual_seed(0)
    unet = VideoUNet(**SMALL).eval()
    for parameter in unet.out.parameters():
        torch.nn.init.normal_(parameter)
    x, context, y = torch.randn(6, 8, 8, 8), torch.randn(6, 1, 24), torch.randn(6, 24)
    t = torch.linspace(-1, 1, 6)
    with torch.no_grad():
        together = unet(x, t, context, y, num_video_frames=3)
        alone = torch.cat([unet(x[i : i + 1], t[i : i + 1], context[i : i + 1], y[i : i + 1], 1) for i in range(6)])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
        for name, parameter in unet.named_parameters():
            if any(part in name for part in TEMPORAL):
                torch.nn.init.normal_(parameter, std=0.1)
        changed = unet(x, t, context, y, num_video_frames=3)
        assert (changed - together).abs().max() > 0.1
        stills = unet(x, t, context, y, num_video_frames=3, image_only_indicator=torch.ones(2, 3))
    torch.testing.assert_close(stills, alone, rtol=1e-4, atol=1e-4)


def test_what_was_given_is_copied() -> None:
    """The mixer begins as nothing; with a factor of one for the second half of the input that half comes out."""
    torch.manual_seed(0)
    unet = VideoUNet(**SMALL, copy_given=True).eval()
    for parameter in unet.out.parameters():
        torch.nn.init.normal_(parameter)
    x, given = torch.randn(6, 8, 8, 8), (torch.zeros(6), torch.randn(6, 1, 24), torch.randn(6, 24), 3)
    assert unet.time_copy is not None
    bias = unet.time_copy.factors.get_parameter("2.bias")
    with torch.no_grad():
        said = unet(x, *given)
        torch.testing.assert_close(said, unet.out(features_of(unet, x, *given)))
        bias[:4], bias[8:] = -1.0, 1.0  # of what it said, of the first and of the second half of the input
        torch.testing.assert_close(unet(x, *given), x[:, 4:])
        stills = torch.tensor([[1, 0, 0], [0, 0, 1]])
        mixed = unet(x, *given, image_only_indicator=stills)
    alone = stills.flatten().bool()
    torch.testing.assert_close(mixed[alone], said[alone])
    torch.testing.assert_close(mixed[~alone], x[~alone, 4:])
    half = VideoUNet(**SMALL, copy_given=True, use_bf16=True).eval()
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16} and half(x, *given).dtype == x.dtype
    with pytest.raises(ConfigError, match="in_channels"):
        VideoUNet(**(SMALL | {"in_channels": 9}), copy_given=True)
    with pytest.raises(ConfigError, match="n_embed"):
        VideoUNet(**SMALL, n_embed=16, copy_given=True)


def features_of(unet: VideoUNet, *given: Any) -> torch.Tensor:
    """The last features of a network."""
    seen: list[torch.Tensor] = []
    with unet.output_blocks[-1].register_forward_hook(lambda module, args, output: seen.append(output)):
        unet(*given)
    return seen[0]


def test_clips_of_a_batch_do_not_see_each_other() -> None:
    case = golden_case("svd_unet")
    unet, inputs = golden_unet(case), case.inputs
    with torch.no_grad():
        second = unet(*(inputs[name][5:] for name in ("x", "t", "context", "y")), num_video_frames=5)
    torch.testing.assert_close(second, case.expected["v"][5:], rtol=1e-4, atol=1e-4)


def test_sites_over_time() -> None:
    unet = VideoUNet(**SMALL)
    over_time = sites(unet, "*", kind="time")
    assert "middle_block.1.time_stack.0.attn1" in over_time.names and len(over_time) == len(sites(unet, "*"))
    assert all(name.endswith("time_stack.0.attn2") for name in sites(unet, "*", kind="time_cross"))
    assert not any("time_stack" in name for kind in ("self", "cross", "residual") for name in sites(unet, "*", kind))
    assert len(over_time) > len(sites(unet, "output_blocks", kind="time")) > 0


def test_first_frame_attention_finds_what_is_elsewhere() -> None:
    """One position of the first frame is seen from every position of the frames after it, through that layer alone."""
    torch.manual_seed(0)
    video = TemporalOptions(merge_factor=0.0, first_frame_attention=True, time_embed_mult=1.0)
    layer = SpatialVideoTransformer(32, 2, 16, use_checkpoint=False, video=video).eval()
    torch.nn.init.normal_(layer.proj_out.weight)
    assert layer.get_parameter("time_pos_embed.0.weight").shape == (32, 32)
    look = layer.get_submodule("time_stack.0.attn2.to_out.0")
    x = torch.randn(3, 32, 4, 4)
    other = x.clone()
    other[0, :, 0, 0] += 3 * torch.randn(32)
    with torch.no_grad():
        unseen = layer(other, None, Clips(3)) - layer(x, None, Clips(3))
        assert not unseen[1:].any()
        torch.nn.init.normal_(look.get_parameter("weight"))
        seen = layer(other, None, Clips(3)) - layer(x, None, Clips(3))
    assert (seen[1:].abs().amax(dim=1) > 1e-4).all()


def test_a_convolution_within_frames_is_the_one_of_three_dimensions() -> None:
    torch.manual_seed(0)
    ours = conv_over_time(8, 12, (1, 3, 5), groups=4)
    plain = torch.nn.Conv3d(8, 12, (1, 3, 5), padding=(0, 1, 2), groups=4)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(2, 8, 3, 6, 7)
    assert type(ours) is not type(plain)
    torch.testing.assert_close(ours(x), plain(x))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"first_frame_attention": True}, "goes without"),
        ({"time_downup": True}, "time_downup"),
        ({"merge_strategy": "mean"}, "merge_strategy is 'mean'"),
        ({"video_kernel_size": [3, 2, 1]}, "three odd numbers"),
        ({"vidoe_kernel_size": 3}, "vidoe_kernel_size"),
    ],
)
def test_wrong_options(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        VideoUNet(**SMALL | change)


def test_rows_must_be_whole_clips() -> None:
    unet = VideoUNet(**SMALL)
    row = torch.zeros(4, 8, 8, 8), torch.zeros(4), torch.zeros(4, 1, 24), torch.zeros(4, 24)
    with pytest.raises(ValueError, match="whole clips of 3"):
        unet(*row, num_video_frames=3)
    with pytest.raises(ValueError, match="num_video_frames"):
        unet(*row)

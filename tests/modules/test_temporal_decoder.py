"""The decoder of films against reference numbers, and as a decoder of pictures."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from ldm.modules.diffusionmodules.model import Decoder
from ldm.modules.diffusionmodules.temporal_decoder import VideoDecoder
from ldm.util import ConfigError
from tests.helpers import golden_case

SHAPE: dict[str, Any] = {
    "double_z": True, "z_channels": 4, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1, 1],
    "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip


def test_temporal_attention_too() -> None:
    case = golden_case("svd_decoder_all")
    decoder = VideoDecoder(**case.config.params)
    decoder.load_state_dict(case.weights, strict=True)
    seen: list[torch.Tensor] = []
    decoder.eval().mid.attn_1.register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad():
        case.assert_close("decoded", decoder(case.inputs["z"], timesteps=case.args["num_video_frames"]))
    case.assert_close("mid_attn_1", seen[0])


@pytest.mark.parametrize("time_mode", ["conv-only", "all", "attn-only"])
def test_it_begins_as_the_decoder_of_pictures(time_mode: str) -> None:
    torch.manual_seed(0)
    plain = Decoder(**SHAPE)
    film = VideoDecoder(time_mode=time_mode, video_kernel_size=[3, 1, 1], **SHAPE)
    lacking = film.load_state_dict(plain.state_dict(), strict=False)
    assert not lacking.unexpected_keys and lacking.missing_keys
    z = torch.randn(6, 4, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(film(z, timesteps=3), plain(z), rtol=1e-4, atol=1e-4)
        trained = copy.deepcopy(film)
        for parameter in trained.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
        assert (trained(z, timesteps=3) - trained(z, skip_video=True)).abs().max() > 0.01
        torch.testing.assert_close(trained(z, timesteps=3)[:3], trained(z[:3]), rtol=1e-4, atol=1e-4)


def test_wrong_options() -> None:
    with pytest.raises(ConfigError, match="time_mode is 'some'"):
        VideoDecoder(time_mode="some", **SHAPE)
    with pytest.raises(ConfigError, match="merge_strategy"):
        VideoDecoder(merge_strategy="fixed", **SHAPE)
    with pytest.raises(ValueError, match="whole clips of 4"):
        VideoDecoder(**SHAPE)(torch.zeros(6, 4, 4, 4), timesteps=4)

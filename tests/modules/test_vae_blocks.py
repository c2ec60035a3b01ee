"""The options of the autoencoder's networks that released models use, and the layers that diffusers has too."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ldm.modules.diffusionmodules.model import AttnBlock, Decoder, Downsample, Encoder, ResnetBlock, Upsample
from ldm.util import ConfigError

DDCONFIG: dict[str, Any] = {
    "double_z": False, "z_channels": 3, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 32,
    "ch_mult": [1, 2], "num_res_blocks": 1,
}  # fmt: skip


def test_attention_sits_where_the_resolution_says() -> None:
    names = Encoder(**DDCONFIG, attn_resolutions=[16]).state_dict()
    assert "down.1.attn.0.q.weight" in names and "down.0.attn.0.q.weight" not in names
    names = Decoder(**DDCONFIG, attn_resolutions=[32]).state_dict()
    assert "up.0.attn.1.q.weight" in names and "up.1.attn.0.q.weight" not in names


def test_attention_none_leaves_all_of_it_out() -> None:
    names = Encoder(**DDCONFIG, attn_resolutions=[16], attn_type="none").state_dict()
    assert not any("attn" in name for name in names)
    with pytest.raises(ConfigError, match="attn_type 'linear'"):
        Encoder(**DDCONFIG, attn_type="linear")


@torch.no_grad()
def test_output_options_of_the_decoder() -> None:
    z = torch.randn(1, 3, 8, 8)
    assert Decoder(**DDCONFIG, give_pre_end=True)(z).shape == (1, 32, 16, 16)
    plain = Decoder(**DDCONFIG)
    squashed = Decoder(**DDCONFIG, tanh_out=True)
    squashed.load_state_dict(plain.state_dict())
    torch.testing.assert_close(squashed(z), plain(z).tanh())


@torch.no_grad()
def test_resampling_without_convolutions() -> None:
    encoder = Encoder(**DDCONFIG, resamp_with_conv=False)
    assert not any("sample" in name for name in encoder.state_dict())
    assert encoder(torch.randn(1, 3, 32, 48)).shape == (1, 3, 16, 24)


@torch.no_grad()
def test_layers_against_diffusers() -> None:
    attention = pytest.importorskip("diffusers.models.attention_processor")
    torch.manual_seed(0)
    x = torch.randn(2, 32, 6, 10)
    ours = AttnBlock(32)
    theirs = attention.Attention(
        32, heads=1, dim_head=32, norm_num_groups=32, eps=1e-6, bias=True, residual_connection=True
    )
    names = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
    weights = {}
    for name, value in ours.state_dict().items():
        layer, kind = name.rsplit(".", 1)
        weights[f"{names[layer]}.{kind}"] = value.flatten(1) if value.dim() == 4 else value
    theirs.load_state_dict(weights)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)

    resampling = pytest.importorskip("diffusers.models.resnet")
    down, up = Downsample(32), Upsample(32)
    their_down = resampling.Downsample2D(32, use_conv=True, padding=0, name="op")
    their_down.load_state_dict(down.state_dict())
    torch.testing.assert_close(down(x), their_down(x), rtol=1e-4, atol=1e-5)
    their_up = resampling.Upsample2D(32, use_conv=True)
    their_up.load_state_dict(up.state_dict())
    torch.testing.assert_close(up(x), their_up(x), rtol=1e-4, atol=1e-5)


def test_a_residual_block_has_a_shortcut_only_where_the_width_changes() -> None:
    assert "nin_shortcut.weight" in ResnetBlock(32, 64).state_dict()
    assert "nin_shortcut.weight" not in ResnetBlock(32, 32).state_dict()

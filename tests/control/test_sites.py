"""Patterns pick layers, and say what there is when they do not."""

from __future__ import annotations

import copy

import pytest
import torch

from ldm.control import Sites, late_decoder, sites
from ldm.control.sites import expand
from ldm.modules.cpu.packed import pack_for_inference
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from ldm.util import UserError
from tests.control.networks import network


def stable_diffusion() -> UNetModel:
    """The layers of SD v1, without memory for weights."""
    with torch.device("meta"):
        return UNetModel(
            model_channels=320, attention_resolutions=[4, 2, 1], num_res_blocks=2, channel_mult=[1, 2, 4, 4],
            num_heads=8, use_spatial_transformer=True, context_dim=768,
        )  # fmt: skip


def test_braces() -> None:
    assert expand("a.{6..8}.b") == ["a.6.b", "a.7.b", "a.8.b"]
    assert expand("{a,b}.{1,3..4}") == ["a.1", "a.3", "a.4", "b.1", "b.3", "b.4"]
    assert expand("plain") == ["plain"]


def test_blocks_of_stable_diffusion() -> None:
    unet = stable_diffusion()
    default = sites(unet)
    assert default.names == tuple(f"output_blocks.{i}.1.transformer_blocks.0.attn1" for i in range(6, 12))
    assert sites(unet, "6,7,8,9,10,11") == default == sites(unet, list(range(6, 12))) == sites(unet, late_decoder(unet))
    assert {default: 1}[sites(unet, "output_blocks.{6,7},output_blocks.{8..11}")] == 1
    assert len(sites(unet, "*", kind="cross")) == 16 and all(
        name.endswith("attn2") for name in sites(unet, "*", "cross")
    )
    assert sites(unet, "output_blocks.*.1.transformer_blocks.0.attn1").names == sites(unet, "output_blocks").names
    assert sites(unet, kind="residual") == Sites(tuple(f"output_blocks.{i}.0" for i in range(6, 12)), "residual")


@pytest.mark.parametrize("packed", [False, True])
def test_resolution(packed: bool) -> None:
    unet = stable_diffusion() if not packed else pack_for_inference(copy.deepcopy(network("unet_sd1")[0]))
    blocks = [".".join(name.split(".")[:2]) for name in sites(unet, "*", resolution=1)]
    expected = ["input_blocks.1", "input_blocks.2", "output_blocks.9", "output_blocks.10", "output_blocks.11"]
    assert blocks == (["input_blocks.1", "output_blocks.4", "output_blocks.5"] if packed else expected)
    if not packed:
        assert sites(unet, "*", resolution=8).names == ("middle_block.1.transformer_blocks.0.attn1",)
        assert len(sites(unet, "*", resolution=[1, 8])) == 6


def test_a_network_without_transformers() -> None:
    unet, _ = network("unet_uncond")
    assert sites(unet, "output_blocks").names == ("output_blocks.0.1", "output_blocks.1.1")
    with pytest.raises(UserError, match="has none"):
        sites(unet, "*", kind="cross")


@pytest.mark.parametrize(
    ("pattern", "options", "what"),
    [
        ("output_blocks.{12..15}", {}, "no self-attention matches .* some in .*output_blocks.11"),
        ("6,7,12", {}, "output_blocks.12"),
        ("output_blocks.1", {}, "no self-attention"),  # 10 and 11 are no output_blocks.1
        ("output_blocks.{6..}", {}, "no range"),
        ("output_blocks.{9..6}", {}, "no range"),
        ("output_blocks.{6", {}, "braces"),
        ("6,,7", {}, "empty pattern"),
        ([], {}, "empty pattern"),
        ("6", {"resolution": 1}, "at resolution 1"),
        ("6", {"kind": "selfish"}, "known: self, cross, residual"),
    ],
)
def test_what_cannot_be_meant(pattern: str, options: dict, what: str) -> None:
    with pytest.raises(UserError, match=what):
        sites(stable_diffusion(), pattern, **options)

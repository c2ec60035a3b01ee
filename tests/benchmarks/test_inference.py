"""The benchmark runs and compares like with like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from benchmarks import inference
from ldm.checkpoint.diffusers_keys import autoencoder_weights, unet_weights
from ldm.models.autoencoder import AutoencoderKL as OurAutoencoder
from ldm.modules.diffusionmodules.openaimodel import UNetModel


def small_unets(dtype: torch.dtype) -> tuple[Any, Any]:
    theirs: Any = UNet2DConditionModel(
        sample_size=8, cross_attention_dim=768, attention_head_dim=2, block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    ours = UNetModel(
        model_channels=32, attention_resolutions=[1], num_res_blocks=1, channel_mult=[1, 2], num_heads=2,
        use_spatial_transformer=True, context_dim=768,
    )  # fmt: skip
    weights = inference.random_weights(theirs, dtype)
    theirs.load_state_dict(weights)
    ours.load_state_dict(unet_weights(weights, [1, 1]))
    return ours.eval(), theirs.eval()


def small_autoencoders(dtype: torch.dtype) -> tuple[Any, Any]:
    theirs: Any = AutoencoderKL(
        block_out_channels=(32, 32, 32, 32), layers_per_block=2, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    shape = {
        "double_z": True, "z_channels": 4, "resolution": 64, "in_channels": 3, "out_ch": 3, "ch": 32,
        "ch_mult": [1, 1, 1, 1], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
    }  # fmt: skip
    ours = OurAutoencoder(ddconfig=shape, lossconfig={"target": "torch.nn.Identity"}, embed_dim=4)
    weights = inference.random_weights(theirs, dtype)
    theirs.load_state_dict(weights)
    ours.load_state_dict(autoencoder_weights(weights))
    return ours.eval(), theirs.eval()


def test_every_part_gives_the_same_result_on_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "build_unets", small_unets)
    monkeypatch.setattr(inference, "build_autoencoders", small_autoencoders)
    arguments = ["--precision", "fp32", "--repeats", "1", "--size", "8", "--out", str(tmp_path)]
    inference.main(arguments)
    rows = json.loads((tmp_path / "inference-fp32.json").read_text())["rows"]
    assert len(rows) == 5
    for row in rows:
        assert row["difference"] < 1e-3, row
        assert row["ratio"] == pytest.approx(row["ours"] / row["diffusers"])

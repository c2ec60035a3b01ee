"""The benchmark runs and compares like with like."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from benchmarks import inference
from benchmarks.inference import node_of
from ldm.checkpoint.diffusers_keys import autoencoder_weights, unet_weights
from ldm.models.autoencoder import AutoencoderKL as OurAutoencoder
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from ldm.util import UserError


def small_unets(_: inference.Shape, dtype: torch.dtype) -> tuple[Any, Any]:
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


def small_autoencoders(_: inference.Shape, dtype: torch.dtype) -> tuple[Any, Any]:
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


SMALL_XL = dataclasses.replace(
    inference.SHAPES["sdxl"],
    theirs={**inference.SHAPES["sdxl"].theirs, "block_out_channels": (32, 64, 64), "attention_head_dim": (1, 2, 2),
            "layers_per_block": 1, "transformer_layers_per_block": (1, 1, 2)},
    blocks=(1, 1, 1), gigabytes=0.0,
)  # fmt: skip


def small_xl_node(shape: inference.Shape, name: str) -> Any:
    node = node_of(shape, name)
    changes = {"model_channels": 32, "channel_mult": [1, 2, 2], "num_res_blocks": 1, "num_head_channels": 32,
               "transformer_depth": [1, 1, 2]}  # fmt: skip
    return {**node, "params": {**node["params"], **changes}}


def test_the_larger_model_gives_the_same_result_on_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(inference.SHAPES, "sdxl", SMALL_XL)
    monkeypatch.setattr(inference, "node_of", small_xl_node)
    arguments = ["--model", "sdxl", "--precision", "fp32", "--repeats", "1", "--size", "8", "--out", str(tmp_path)]
    inference.main([*arguments, "--parts", "unet", "step"])
    rows = json.loads((tmp_path / "inference-sdxl-fp32.json").read_text())["rows"]
    assert len(rows) == 3 and all(row["difference"] < 1e-3 for row in rows), rows


def test_a_run_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(inference.SHAPES, "sdxl", dataclasses.replace(SMALL_XL, gigabytes=1e6))
    with pytest.raises(UserError, match=r"'sdxl' needs about \d+ GB of memory here, \d+ are free"):
        inference.Run("sdxl", torch.bfloat16, "cpu", 1, 8).check_memory()

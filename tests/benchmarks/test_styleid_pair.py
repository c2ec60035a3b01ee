"""The benchmark of restyling counts what it says, and its two sides do as many evaluations of the same network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import styleid
from benchmarks.styleid_sides import SIZES, Block, our_config, random_weights
from ldm.checkpoint.diffusers_keys import unet_weights
from ldm.util import instantiate_from_config
from tests import forked


def test_a_pair_of_fifty_steps_is_149_evaluations() -> None:
    assert styleid.evaluations(50) == 149


def test_the_latents_of_a_picture_take_at_most_eight_megabytes() -> None:
    size = styleid.latents_file(50, 64)
    assert 51 * 4 * 64 * 64 * 4 < size < 8e6


def test_both_sides_have_one_network() -> None:
    """The same number of weights, and the same function of them."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        theirs: Any = UNet2DConditionModel(
            sample_size=64, cross_attention_dim=768, attention_head_dim=8, block_out_channels=(32, 64, 128, 128)
        )
        ours = instantiate_from_config(our_config(SIZES["small"]).params.unet_config)
    random_weights(theirs)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    ours.load_state_dict(unet_weights(theirs.state_dict(), [2] * 4), assign=True)
    x, context = torch.randn(1, 4, 8, 8).bfloat16(), torch.randn(1, 77, 768).bfloat16()
    with torch.no_grad():
        a, b = ours(x, torch.tensor([501]), context=context), theirs(x, 501, encoder_hidden_states=context).sample
    assert torch.cosine_similarity(a.float().flatten(), b.float().flatten(), dim=0) > 0.999


class Recorded:
    """A side that has run."""

    calls, total = styleid.Side.calls, styleid.Side.total

    def __init__(self, *blocks: Block) -> None:
        self.blocks = blocks


def test_fewer_steps_are_scaled_to_fifty() -> None:
    about = {"peak": 3.0, "inverted": 2, "features": 4 * 2**30, "files": [10]}
    first = Block([1.0] * 10, calls_cpu=15, peak=2, seconds=10, cpu=15)
    last = Block([2.0] * 4, calls_cpu=5, peak=2.5, seconds=18, cpu=13, done=True, about=about)  # 10 s are outside
    other = Block([2.0] * 14, calls_cpu=56, seconds=28, cpu=56, done=True)
    row = styleid.compare(Recorded(first, last), Recorded(other), 5, 8)  # type: ignore[arg-type]
    scale = 149 / 14
    assert row["pair_of_50_steps"] == pytest.approx(18 * scale + 10)
    assert row["ratio"] == pytest.approx((18 * scale + 10) / (28 * scale))
    assert row["cpu_ratio"] == pytest.approx((20 * scale + 8) / (56 * scale))
    assert row["features_of_50_steps"] == 49 * 2**30
    assert row["peak_gib_of_50_steps"] == pytest.approx(2.5 + 45)  # before decoding, and the features of 45 steps more
    assert row["median_call"] == {"content": 1.0, "style": 1.0, "sampling": 2.0}
    with pytest.raises(SystemExit, match="14"):
        styleid.compare(Recorded(first), Recorded(other), 5, 8)  # type: ignore[arg-type]


def test_inversions_are_shared() -> None:
    row = styleid.many(2, 3, 2, "replay")
    assert (row["pairs"], row["inversions"]) == (6, 5)
    assert (row["rows_inverting"], row["rows_sampling"]) == (10, 6)
    assert row["rows_beside"] == 3 * (2 + 1)  # each style beside both contents: they and it once more
    assert row["bytes"] > 0


def test_sixty_inversions_for_twenty_by_forty_fit_on_the_disk() -> None:
    assert 60 * styleid.latents_file(50, 64) < 0.5e9


@pytest.mark.slow
def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(styleid, "subprocess", forked.as_subprocess())
    styleid.main(["--only", "pair", "--size", "small", "--steps", "2", "--threads", "1", "--out", str(tmp_path)])
    row = json.loads((tmp_path / "styleid-memory-pair.json").read_text())["pair"]
    assert (row["evaluations"], row["inverted"]) == (5, 2)
    assert row["ratio"] == pytest.approx(row["pair_of_50_steps"] / row["yardstick"])
    assert row["features"] == 3 * 2 * (3 * 16 * 64 + 3 * 64 * 32)  # q of one, k and v of the other, 2 bytes each

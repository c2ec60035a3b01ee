"""The benchmark runs at a small size, and its two sides compute the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from benchmarks import video_full_size as benchmark
from tests.engines import engine_node
from tests.helpers import golden_case

THEIRS: dict[str, Any] = {
    "block_out_channels": (32, 64), "layers_per_block": 1, "cross_attention_dim": 24, "addition_time_embed_dim": 8,
    "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
    "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"), "num_attention_heads": (2, 4),
    "projection_class_embeddings_input_dim": 24,
}  # fmt: skip


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both networks at a small size, in this process."""
    OmegaConf.save(OmegaConf.create({"model": engine_node(golden_case("svd_sampling"))}), tmp_path / "svd.yaml")
    monkeypatch.setattr(benchmark, "CONFIG", tmp_path / "svd.yaml")
    monkeypatch.setattr(benchmark, "THEIRS", THEIRS)
    monkeypatch.setattr(benchmark, "in_process", lambda name, run: {"name": name, **benchmark.CHILDREN[name](run)})


def test_both_sides_compute_the_same(tmp_path: Path) -> None:
    """Apart from the eps of some layers, of which docs/video.md speaks."""
    benchmark.main(["--frames", "3", "--size", "64", "--steps", "1", "--outdir", str(tmp_path)])
    rows = json.loads((tmp_path / "video_full_size.json").read_text())
    assert [row["name"] for row in rows] == ["open", "film", *benchmark.ORDER, "ours / diffusers"]
    assert 0 < rows[-1]["difference"] < 1e-3 and rows[-1]["wall_s"] > 0 and rows[0]["load_and_read_s"] > 0


def test_one_side_alone_is_compared_with_nothing(tmp_path: Path) -> None:
    benchmark.main(
        ["--parts", "network", "--order", "ours", "--frames", "2", "--size", "64", "--outdir", str(tmp_path)]
    )
    (row,) = json.loads((tmp_path / "video_full_size.json").read_text())
    assert row["name"] == "ours" and row["wall_s"] > 0

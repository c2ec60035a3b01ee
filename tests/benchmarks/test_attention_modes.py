"""The benchmark of modes runs, and its ratios are those of its times."""

from __future__ import annotations

import pytest
import torch

from benchmarks.attention_modes import measure


def test_small() -> None:
    found = measure(width=32, size=8, repeats=1, dtype=torch.float32)
    assert {"never_s", "after_s", "save_s", "inject_s", "after_ratio", "save_ratio", "inject_ratio"} == set(found)
    for name in ("after", "save", "inject"):
        assert found[f"{name}_ratio"] == pytest.approx(found[f"{name}_s"] / found["never_s"])

"""How well pictures come back, by each way to invert."""

from __future__ import annotations

from pathlib import Path

import torch

from ldm.workflows.models import open_model
from scripts.inversion_quality import there_and_back
from tests.workflows.small_model import write_small_model


def test_exact_inversions_lose_nothing_but_rounding(tmp_path: Path) -> None:
    model, _ = open_model(write_small_model(tmp_path), device="cpu")
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = {name: there_and_back(model, picture, 8, name) for name in ("ddim", "edict", "bdia")}
    assert len({autoencoder for _, autoencoder in found.values()}) == 1
    assert min(found["edict"][0], found["bdia"][0]) > max(60, found["ddim"][0] + 20), found

"""How well pictures come back, by each way to invert."""

from __future__ import annotations

import torch

from ldm.workflows.models import open_model
from ldm.workflows.restyle.recipe import Recipe
from scripts.inversion_quality import there_and_back, untouched


def test_exact_inversions_lose_nothing_but_rounding() -> None:
    model, _ = open_model(device="cpu")  # random weights would make much of every rounding
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = {name: there_and_back(model, picture, Recipe.of(untouched(8, name))) for name in ("ddim", "edict", "bdia")}
    assert len({autoencoder for _, autoencoder in found.values()}) == 1
    assert min(found["edict"][0], found["bdia"][0]) > max(100, found["ddim"][0] + 60), found

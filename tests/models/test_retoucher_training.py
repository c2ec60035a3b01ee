"""A retoucher learns what is regularly missing in pixels, in units of what is seen of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

from ldm.models.patch_training import FLAT
from ldm.models.retoucher import RetoucherTraining
from ldm.modules.losses.shades import CHROMA

CONFIG = {
    "target": "ldm.modules.retoucher.Retoucher",
    "params": {"channels": 2, "side": 4, "width": 64, "depth": 1},
}


def batch() -> dict[str, torch.Tensor]:
    """Pixels that are too dark by what the latents say."""
    generator = torch.Generator().manual_seed(0)
    around = torch.randn(4, 64, 32, generator=generator)
    drawn = torch.rand(4, 64, 48, generator=generator) - 0.5
    return {"around": around, "drawn": drawn, "true": drawn + 0.2 * torch.tanh(around[..., :1])}


def test_what_is_regularly_missing_is_learned() -> None:
    torch.manual_seed(0)
    training = RetoucherTraining(CONFIG)
    training.learning_rate = 3e-3
    optimizer = training.configure_optimizers()
    given = batch()
    loss, before = training.shades(given)
    assert loss.item() == pytest.approx(before.item()), "at first nothing is added"
    for _ in range(200):
        optimizer.zero_grad()
        training.shades(given)[0].backward()
        optimizer.step()
    assert training.shades(given)[0].item() < 0.4 * before.item()


def test_a_pixel_counts_by_its_lightness_and_chroma() -> None:
    """The root of CIE94's squares without its hue, and a little more; strong colours count less."""
    given = batch()
    _, before = RetoucherTraining(CONFIG).shades(given)
    pixels = {name: given[name].reshape(-1, 3, 16).transpose(1, 2).numpy().astype(float) for name in ("drawn", "true")}
    true, drawn = (rgb2lab((pixels[name] + 1) / 2) for name in ("true", "drawn"))
    weight = 1 / (1 + CHROMA * np.linalg.norm(true[..., 1:], axis=-1))
    difference = drawn - true
    squares = difference[..., 0] ** 2 + weight**2 * (difference[..., 1:] ** 2).sum(-1)
    assert float(before) == pytest.approx(np.sqrt(squares + FLAT).mean(), rel=2e-3)

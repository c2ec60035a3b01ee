"""A retoucher learns what is regularly missing in pixels, in units of what is seen of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

from ldm.models.patch_training import FLAT
from ldm.models.retoucher import RetoucherTraining
from ldm.modules.losses.shades import CHROMA
from ldm.modules.retoucher import window
from ldm.util import UserError

CONFIG: dict[str, Any] = {
    "target": "ldm.modules.retoucher.Retoucher",
    "params": {"channels": 2, "side": 4, "width": 64, "depth": 1},
}


def batch() -> dict[str, torch.Tensor]:
    """Pixels that are too dark by what the latents say."""
    generator = torch.Generator().manual_seed(0)
    around = torch.randn(4, 64, 32, generator=generator)
    drawn = 64 + 127 * torch.rand(4, 64, 48, generator=generator)
    true = drawn + 25 * torch.tanh(around[..., :1])
    return {"around": around.half(), "drawn": drawn.to(torch.uint8), "true": true.to(torch.uint8)}


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
    """The root of CIE94's squares without its hue, and a little more; strong colours count less, as a rim does."""
    given = batch()
    _, before = RetoucherTraining(CONFIG).shades(given)
    pixels = {name: given[name].reshape(-1, 3, 16).transpose(1, 2).numpy().astype(float) for name in ("drawn", "true")}
    true, drawn = (rgb2lab(pixels[name] / 255) for name in ("true", "drawn"))
    weight = 1 / (1 + CHROMA * np.linalg.norm(true[..., 1:], axis=-1))
    difference = drawn - true
    squares = difference[..., 0] ** 2 + weight**2 * (difference[..., 1:] ** 2).sum(-1)
    counts = np.broadcast_to(window(4, 4, 4).numpy().ravel(), squares.shape)
    assert float(before) == pytest.approx(np.average(np.sqrt(squares + FLAT), weights=counts), rel=2e-3)


def test_data_of_other_patches_is_refused() -> None:
    for changed, said in (({"side": 6}, "6 pixels a side"), ({"channels": 3}, "3 channels")):
        other = RetoucherTraining({**CONFIG, "params": {**CONFIG["params"], **changed}})
        with pytest.raises(UserError, match=f"the data's patches are not of .*{said}"):
            other.shades(batch())

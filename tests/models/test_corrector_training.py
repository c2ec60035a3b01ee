"""A corrector learns errors that are regular, in units of what is seen of them."""

from __future__ import annotations

import pytest
import torch

from ldm.models.corrector import CorrectorTraining
from ldm.models.patch_training import FLAT

CONFIG = {
    "target": "ldm.modules.corrector.Corrector",
    "params": {"inputs": 12, "channels": 3, "width": 32, "depth": 1},
}


def batch(metric: torch.Tensor) -> dict[str, torch.Tensor]:
    """Errors that are a function of what is seen."""
    seen = torch.randn(4, 64, 12, generator=torch.Generator().manual_seed(0))
    return {"seen": seen, "error": torch.tanh(2 * seen) + 0.5, "metric": metric.expand(4, 3, 3)}


def test_regular_errors_are_learned() -> None:
    torch.manual_seed(0)
    training = CorrectorTraining(CONFIG).train()
    training.learning_rate = 3e-3
    optimizer = training.configure_optimizers()
    given = batch(torch.eye(3))
    loss, before = training.shades(given)
    assert float(loss) == pytest.approx(float(before)), "at first nothing is corrected"
    for _ in range(150):
        optimizer.zero_grad()
        training.shades(given)[0].backward()
        optimizer.step()
    training.eval()
    assert float(training.shades(given)[0]) < 0.75 + 0.1 * (float(before) - 0.75)


def test_an_error_counts_by_what_is_seen_of_it() -> None:
    """Cells with an error e count as the root of e G e and a little more, whatever the order of channels and cells."""
    metric = torch.tensor([[4.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 1.0]])
    given = batch(metric)
    _, before = CorrectorTraining(CONFIG).shades(given)
    cells = given["error"].reshape(-1, 3, 4).transpose(1, 2).reshape(-1, 3)  # a patch has channel by channel its cells
    wanted = (torch.einsum("nc,cd,nd->n", cells, metric, cells) + FLAT).sqrt().mean()
    assert float(before) == pytest.approx(float(wanted), rel=1e-5)

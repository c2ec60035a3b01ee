"""Fixed points found from all that was tried."""

from __future__ import annotations

import torch
from torch import Tensor

from ldm.models.diffusion.samplers.anderson import next_try

TARGET = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
FACTOR = torch.tensor([0.9, -1.3, 0.4, 0.0]).view(1, 1, 4, 1)  # of the distance to it; -1.3 alone leads away


def iterated(rounds: int, rows: slice = slice(None), mixing: bool = True) -> Tensor:
    """Where x = target + factor (x - target) leads from 0."""
    target, tried, images = TARGET[rows], list[Tensor](), list[Tensor]()
    x = torch.zeros_like(target)
    for _ in range(rounds):
        tried.append(x)
        images.append(target + FACTOR * (x - target))
        x = next_try(tried, images) if mixing else images[-1]
    return x


def test_a_linear_map_is_solved_in_a_round_more_than_it_has_factors() -> None:
    assert torch.equal(iterated(1), iterated(1, mixing=False))
    assert float((iterated(5) - TARGET).abs().max()) < 1e-3
    assert float((iterated(5, mixing=False) - TARGET).abs().max()) > 1


def test_a_row_is_the_same_alone_and_beside_others() -> None:
    torch.testing.assert_close(iterated(4, slice(1, 2)), iterated(4)[1:2], rtol=1e-5, atol=1e-6)


def test_what_is_found_stays() -> None:
    """No difference is left to weigh."""
    assert torch.equal(next_try([TARGET] * 3, [TARGET] * 3), TARGET)
    half = torch.cat([TARGET[:1], torch.zeros_like(TARGET[:1])])
    found = next_try([half, half + torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)], [half, half])
    assert bool(found.isfinite().all()) and torch.equal(found[:1], TARGET[:1])

"""Modules are built without values at once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ldm.checkpoint.unfilled import without_values


def test_random_values_are_left_out_where_there_is_no_place_for_them() -> None:
    with without_values():
        first = nn.Linear(3, 4)
        module = nn.Sequential(first, nn.Embedding(5, 6), nn.Conv2d(1, 2, 3))
        nn.init.trunc_normal_(first.weight, std=0.02)
        free = torch.empty(2, 3).normal_().uniform_() + torch.randn(2, 3, generator=torch.Generator())
    assert all(value.is_meta for value in [*module.parameters(), free])
    assert [tuple(value.shape) for value in module.parameters()] == [(4, 3), (4,), (5, 6), (2, 1, 3, 3), (2,)]
    assert first.weight.requires_grad


@pytest.mark.parametrize(
    "fill", [torch.Tensor.normal_, torch.Tensor.uniform_, nn.init.normal_, nn.init.xavier_uniform_]
)
def test_tensors_that_have_a_place_are_filled_as_ever(fill: object) -> None:
    made: list[torch.Tensor] = []
    for _ in range(2):
        torch.manual_seed(3)
        tensor = torch.zeros(3, 4, device="cpu")
        if made:
            fill(tensor)  # type: ignore[operator]
        else:
            with without_values():
                fill(tensor)  # type: ignore[operator]
        made.append(tensor)
    assert made[0].any() and torch.equal(*made)


def test_random_tensors_of_a_device_are_made() -> None:
    with without_values():
        assert torch.rand(3, 4, device="cpu").any() and torch.randn(2, device="cpu").any()


def test_outside_of_it_modules_have_values() -> None:
    with without_values():
        pass
    assert nn.Linear(3, 4).weight.device.type == "cpu"

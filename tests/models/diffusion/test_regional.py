"""Predictions put together region by region, with denoisers whose answers are known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from ldm.control import Box
from ldm.models.diffusion.loop import ask
from ldm.models.diffusion.regional import Backdrop, Regional, View, weights_of
from ldm.modules.diffusionmodules.levels import Schedule
from ldm.util import UserError
from tests.models.diffusion.gaussian_world import GaussianDenoiser

GRID = (8, 8)
HALVES = [Box(0, 0, 0.5, 1).distances(GRID), Box(0.5, 0, 1, 1).distances(GRID)]


@dataclass
class Says:
    """Answers with a picture of its own, or with what it sees, and keeps what it saw."""

    answer: Tensor | None
    schedule: Schedule
    seen: list[Tensor] = field(default_factory=list)
    device: ClassVar[torch.device] = torch.device("cpu")

    def predict(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        self.seen.append(x)
        return x if self.answer is None else self.answer.expand_as(x)


@pytest.fixture
def world() -> Any:
    return GaussianDenoiser()


def flat(value: float) -> Tensor:
    return torch.full((1, 1, *GRID), value)


def test_weights_are_shares() -> None:
    for rest in (False, True):
        weights = torch.stack(weights_of(HALVES, rest))
        assert torch.allclose(weights.sum(dim=0), torch.ones(GRID))
    left, right = weights_of(HALVES, rest=False)
    assert float(left[0, 0]) > 0.999 and float(right[0, 0]) < 0.001
    assert 0.6 < float(left[4, 3]) < 0.95 and torch.equal(left, right.flip(1))
    box, rest_of_it = weights_of([Box(0.25, 0.25, 0.75, 0.75).distances(GRID)], rest=True)
    assert float(box[3, 3]) > 0.9 and float(rest_of_it[0, 0]) > 0.98


def test_each_place_has_its_own_prediction(world: Any) -> None:
    views = [
        View(Says(flat(value), world.schedule), None, weight)
        for value, weight in zip((2.0, -3.0), weights_of(HALVES, rest=False), strict=True)
    ]
    out = ask(Regional(world, views), torch.zeros(2, 1, *GRID), world.schedule.levels(10)[0], None)
    assert out.shape == (2, 1, *GRID) and torch.allclose(out[..., 0], torch.tensor(2.0), atol=0.01)
    assert torch.allclose(out[..., 7], torch.tensor(-3.0), atol=0.01)


def test_a_shifted_view_sees_its_box_in_the_middle(world: Any) -> None:
    x = torch.arange(64.0).reshape(1, 1, *GRID)
    ramp, itself = Says(x, world.schedule), Says(None, world.schedule)
    levels = world.schedule.levels(10)
    for says, wanted in ((ramp, x.roll((-2, 3), (2, 3))), (itself, x)):
        view = View(says, torch.zeros(1, 1, 1), torch.ones(GRID), shift=(2, -3))
        assert torch.equal(ask(Regional(world, [view]), x, levels[0], None), wanted)
        assert torch.equal(says.seen[0], x.roll((2, -3), (2, 3)))
    view = View(itself, {"c_concat": [x]}, torch.ones(GRID), shift=(1, 0))
    with pytest.raises(UserError, match="--layout_view whole"):
        ask(Regional(world, [view]), x, levels[0], None)


def test_a_region_is_started_before_a_flat_colour(world: Any) -> None:
    levels = world.schedule.levels(10)
    generator = torch.Generator().manual_seed(3)
    x, noise = (torch.randn(2, 1, *GRID, generator=generator) for _ in range(2))
    says = Says(None, world.schedule)
    alone = torch.zeros(GRID)
    alone[2:6, 2:6] = 1
    view = View(says, None, torch.ones(GRID), alone=alone)
    regional = Regional(world, [view], Backdrop(torch.tensor([0.5, -0.5]).reshape(2, 1, 1, 1), noise, steps=2))
    for level in levels[:3]:
        ask(regional, x, level, None)
    for seen, level, colour in zip(says.seen[:2], levels, (0.5, -0.5), strict=False):
        behind = level.noised(torch.tensor(colour), noise)
        assert torch.equal(seen[..., 2:6, 2:6], x[..., 2:6, 2:6])
        assert torch.allclose(seen[..., 0, :], behind[..., 0, :])
    assert torch.equal(says.seen[2], x)

"""Moving a latent down an energy's gradient: nothing is cut, nothing is left behind, each picture goes its own way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ldm.control.energy import Excite, Goal, Layout, excite_sites, layout_sites
from ldm.control.regions import Box
from ldm.models.diffusion.loop import Level
from ldm.models.diffusion.steering import LayoutSettings, Slope, SteerExcite, SteerLayout
from ldm.modules.cpu.packed import PackedConv2d, pack_for_inference
from ldm.modules.diffusionmodules.schedule import BetaSchedule, make_beta_schedule
from ldm.util import UserError, instantiate_from_config
from tests.helpers import golden_case

SCHEDULE = BetaSchedule.from_betas(make_beta_schedule("linear", 1000, 0.00085, 0.012))
LEFT, RIGHT = Box(0, 0.2, 0.5, 0.8), Box(0.5, 0.2, 1, 0.8)


class Model:
    """A network of tests/golden, on which the tests may work, with a schedule around it."""

    device = torch.device("cpu")
    schedule = SCHEDULE

    def __init__(self) -> None:
        case = golden_case("unet_sd1")
        self.unet: Any = instantiate_from_config(case.config)
        self.unet.load_state_dict(case.weights)
        self.unet.eval()
        self.rows: list[int] = []

    def predict(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        self.rows.append(len(x))
        return self.unet(x, t, context=cond)


def inputs(rows: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, 4, 16, 16, generator=generator), torch.randn(rows, 7, 24, generator=generator)


def slope_of(model: Model, cond: Tensor, goals: list[list[Goal]]) -> Slope:
    return Slope(model, model.unet, cond, Layout(goals, layout_sites(model.unet)))


def test_packed_layers_let_the_gradient_through() -> None:
    model, (x, cond) = Model(), inputs(1)
    level, goals = SCHEDULE.levels(10)[2], [[Goal((2,), LEFT)]]
    plain = slope_of(model, cond, goals)(x, level, [0])
    pack_for_inference(model.unet)
    with torch.no_grad():
        model.predict(x, torch.tensor([5]), cond)  # weights are packed at the first call
    packed = [module for module in model.unet.modules() if isinstance(module, PackedConv2d) and module.is_packed]
    assert packed
    energies, gradient = slope_of(model, cond, goals)(x, level, [0])
    torch.testing.assert_close(energies, plain[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient, plain[1], rtol=1e-3, atol=1e-6)
    assert float(gradient.abs().max()) > 1e-4
    assert all(module.is_packed for module in packed)


def test_nothing_is_left_behind() -> None:
    model, (x, cond) = Model(), inputs(1)
    wanting = {name: parameter.requires_grad for name, parameter in model.unet.named_parameters()}
    assert all(wanting.values())
    ends: list[str] = []
    hook = model.unet.out.register_forward_hook(lambda *_: ends.append("the end"))
    slope_of(model, cond, [[Goal((2,), LEFT)]])(x, SCHEDULE.levels(10)[2], [0])
    assert not ends  # the pass ended at the last map that counts
    hook.remove()
    assert all(parameter.grad is None for parameter in model.unet.parameters())
    assert {name: parameter.requires_grad for name, parameter in model.unet.named_parameters()} == wanting
    assert not any("attend" in vars(module) for module in model.unet.modules())
    assert not x.requires_grad


@pytest.mark.parametrize("kind", [SteerLayout, SteerExcite])
def test_each_picture_goes_its_own_way(kind: Any) -> None:
    """A picture moves as it does alone, whatever is beside it; one that wants nothing stays as it is."""
    model, (x, cond) = Model(), inputs()

    def energy(rows: list[int]) -> Any:
        if kind is SteerLayout:
            wanted = [[Goal((2,), LEFT), Goal((4,), RIGHT)], [], [Goal((1, 5), RIGHT)]]
            return Layout([wanted[row] for row in rows], layout_sites(model.unet))
        words: list[list[tuple[int, ...]]] = [[(2,), (4,)], [], [(1,)]]
        return Excite([words[row] for row in rows], excite_sites(model.unet))

    levels = SCHEDULE.levels(10)
    together = kind(Slope(model, model.unet, cond, energy([0, 1, 2])), 10)
    moved = together(x, levels[0])
    for row in range(3):
        alone = kind(Slope(model, model.unet, cond[row : row + 1], energy([row])), 10)
        # refinement goes on from its own rounding, twenty times
        torch.testing.assert_close(alone(x[row : row + 1], levels[0])[0], moved[row], rtol=1e-2, atol=1e-2)
    assert torch.equal(moved[1], x[1]) and float((moved[0] - x[0]).abs().max()) > 0.1
    assert set(together.losses) == {0, 2}
    assert together(x, levels[-1]) is x  # its share of the steps is over


def test_a_picture_that_is_there_is_not_asked_about_again() -> None:
    model, (x, cond) = Model(), inputs(2)
    everywhere, nowhere = Goal((2,), Box(0, 0, 1, 1)), Goal((2,), Box(0, 0, 0.25, 0.25))
    steer = SteerLayout(slope_of(model, cond, [[everywhere], [nowhere]]), 10, LayoutSettings(iterations=3))
    for level in SCHEDULE.levels(10)[:2]:
        x = steer(x, level)
    assert model.rows == [2, 1, 1, 1, 1, 1]
    assert len(steer.losses[0]) == 1 and steer.losses[0][0][1] == pytest.approx(0, abs=1e-6)
    energies = [energy for _, energy in steer.losses[1]]
    assert energies[-1] < energies[0]


def test_gradients_that_are_no_numbers() -> None:
    model, (x, cond) = Model(), inputs(1)
    x[0, 0, 0, 0] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        slope_of(model, cond, [[Goal((2,), LEFT)]])(x, Level(500, 0.8, 0.6), [0])
    assert all(parameter.requires_grad for parameter in model.unet.parameters())


def test_the_gradient_is_that_of_the_energy() -> None:
    model, (x, cond) = Model(), inputs(1)
    slope, level = slope_of(model, cond, [[Goal((2,), LEFT)]]), SCHEDULE.levels(10)[4]
    _, gradient = slope(x, level, [0])
    direction = gradient / gradient.norm()
    up, down = (slope(x + sign * 1e-2 * direction, level, [0])[0] for sign in (1, -1))
    torch.testing.assert_close((up - down)[0] / 2e-2, gradient.norm(), rtol=0.03, atol=0)

"""Layout guidance and Attend-and-Excite against numbers of their own authors' programs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from ldm.control.energy import Excite, Goal, Layout, excite_sites, layout_sites, mean_map, smooth
from ldm.control.observe import AttentionMaps, Observe
from ldm.control.regions import Box, Boxes
from ldm.control.seam import attention_mode
from ldm.control.sites import by_resolution
from ldm.models.diffusion.guidance import guided
from ldm.models.diffusion.loop import Denoise, Draw, Level, State, StepRule, estimator, run
from ldm.models.diffusion.samplers.ddim import DDIM
from ldm.models.diffusion.steering import ExciteSettings, LayoutSettings, Slope, SteerExcite, SteerLayout
from ldm.modules.diffusionmodules.levels import CLEAN, Estimate, numbered
from ldm.modules.diffusionmodules.schedule import BetaSchedule, make_beta_schedule
from ldm.util import UserError
from tests.control.networks import network
from tests.helpers import GoldenCase, golden_case

BETAS = make_beta_schedule("linear", 1000, 0.00085, 0.012)  # what diffusers calls scaled_linear
STEPS = 51


class Model:
    """The network of the cases with a schedule around it."""

    device = torch.device("cpu")

    def __init__(self, schedule: Any) -> None:
        self.schedule = schedule
        self.unet, _ = network("unet_sd1")

    def predict(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        return self.unet(x, t, context=cond)


class Sigmas(BetaSchedule):
    """x = x0 + sigma e along 51 timesteps that are not whole, as the LMS and Euler schedulers of the source go."""

    def walk(self) -> list[Level]:
        sigmas = np.sqrt((1 - self.alphas_cumprod.numpy()) / self.alphas_cumprod.numpy())
        told = np.linspace(0, 999, STEPS)[::-1]
        between = np.interp(told, np.arange(1000), sigmas)
        return numbered([*(Level(float(t), 1.0, float(s)) for t, s in zip(told, between, strict=True)), CLEAN])

    def enter(self, x: Tensor, level: Level) -> Tensor:
        return x / math.sqrt(level.noise**2 + 1)

    def tell(self, level: Level, x: Tensor) -> Tensor:
        return torch.full((x.shape[0],), level.told)

    def estimate(self, out: Tensor, x: Tensor, level: Level) -> Estimate:
        return Estimate(x - level.noise * out, out)


@dataclass
class LMS:
    """Linear multistep in sigma with four derivatives, whose integrals are taken numerically, as k-diffusion has it."""

    sigmas: Sequence[float]

    def levels(self, schedule: Any, steps: int) -> list[Level]:
        raise NotImplementedError

    def step(self, state: State, here: Level, there: Level, denoise: Denoise, draw: Draw) -> State:
        estimate = denoise(state.x, here)
        slopes = (estimate.eps, *state.memory)[:4]
        i = here.index

        def weight(j: int) -> float:
            others = [k for k in range(len(slopes)) if k != j]

            def basis(s: float) -> float:
                return math.prod((s - self.sigmas[i - k]) / (self.sigmas[i - j] - self.sigmas[i - k]) for k in others)

            return float(quad(basis, here.noise, there.noise, epsrel=1e-4)[0])

        x = state.x + sum(weight(j) * slope for j, slope in enumerate(slopes))
        return State(x, estimate.x0, slopes)


@dataclass
class EulerInSigma:
    """x + (sigma' - sigma) e."""

    def levels(self, schedule: Any, steps: int) -> list[Level]:
        raise NotImplementedError

    def step(self, state: State, here: Level, there: Level, denoise: Denoise, draw: Draw) -> State:
        estimate = denoise(state.x, here)
        return State(state.x + (there.noise - here.noise) * estimate.eps, estimate.x0)


def no_noise() -> Tensor:
    raise AssertionError("these steps draw nothing")


def goals(case: GoldenCase, boxes: str) -> list[Goal]:
    args = case.args
    placed = [Boxes(tuple(Box(*sides) for sides in several)) for several in args[boxes]]
    return [Goal(tuple(p), region) for p, region in zip(args["object_positions"], placed, strict=True)]


@dataclass
class Guided:
    """A walk under layout guidance, as far as it was gone."""

    case: GoldenCase = field(default_factory=lambda: golden_case("layout_guidance"))
    model: Model = field(default_factory=lambda: Model(Sigmas.from_betas(BETAS)))

    def steer(self, boxes: str = "boxes") -> SteerLayout:
        energy = Layout([goals(self.case, boxes)], layout_sites(self.model.unet))
        return SteerLayout(Slope(self.model, self.model.unet, self.case.inputs["cond"], energy), STEPS)

    @property
    def start(self) -> Tensor:
        return self.case.inputs["noise"] * self.model.schedule.walk()[0].noise

    @torch.no_grad()
    def go(self, rule: StepRule, steer: SteerLayout, steps: int) -> dict[int, Tensor]:
        """The latent after each step."""
        after: dict[int, Tensor] = {}
        denoise = estimator(guided(self.model, 7.5, self.case.inputs["uncond"]), self.case.inputs["cond"])
        levels = self.model.schedule.walk()[: steps + 1]
        run(rule, levels, self.start, denoise, no_noise, before=[steer],
            callback=lambda step: after.update({step.index + 1: step.x}))  # fmt: skip
        return after


def counted(steer: SteerLayout, steps: int) -> Tensor:
    return torch.tensor([sum(1 for index, _ in steer.losses.get(0, []) if index == step) for step in range(steps)])


def test_layout_first_iteration() -> None:
    walk = Guided()
    case, level, steer = walk.case, walk.model.schedule.walk()[0], walk.steer()
    levels = walk.model.schedule.walk()
    case.assert_close("sigmas", torch.tensor([level.noise for level in levels]))
    case.assert_close("timesteps", torch.tensor([level.told for level in levels[:-1]]))
    maps = AttentionMaps()
    where = layout_sites(walk.model.unet)
    assert [name.split(".transformer")[0] for name in where] == [
        "middle_block.1",
        "output_blocks.2.1",
        "output_blocks.3.1",
    ]
    with torch.no_grad(), attention_mode(walk.model.unet, {where: Observe(maps)}):
        x = walk.model.schedule.enter(walk.start, level)
        walk.model.predict(x, walk.model.schedule.tell(level, x), case.inputs["cond"])
    for name, probs in zip(("map.mid_0", "map.up_0", "map.up_1"), maps.probs.values(), strict=True):
        case.assert_close(name, probs[0])
    energies, gradient = steer.slope(walk.start, level, [0])
    case.assert_close("grad_first", 30 * gradient)
    torch.testing.assert_close(energies[0], case.expected["lms.losses"][0], rtol=1e-4, atol=3e-5)


def test_layout_walks() -> None:
    walk = Guided()
    sigmas = [level.noise for level in walk.model.schedule.walk()]
    for name, rule, steps in (("lms", LMS(sigmas), 12), ("euler", EulerInSigma(), 3)):
        steer = walk.steer()
        after = walk.go(rule, steer, steps)
        for step in {1, 3, steps}:
            walk.case.assert_close(f"{name}.latents_{step}", after[step])
        walk.case.assert_close(f"{name}.iterations", counted(steer, steps))
        losses = [energy for index, energy in steer.losses[0] if index < 3]
        walk.case.assert_close(f"{name}.losses", torch.tensor(losses))


def test_layout_ends_once_it_is_there() -> None:
    walk = Guided()
    steer = walk.steer("boxes_stop")
    after = walk.go(LMS([level.noise for level in walk.model.schedule.walk()]), steer, 3)
    walk.case.assert_close("stop.losses", torch.tensor([energy for _, energy in steer.losses[0]]))
    walk.case.assert_close("stop.iterations", counted(steer, 3))
    for step in (1, 3):
        walk.case.assert_close(f"stop.latents_{step}", after[step])


def test_layout_where_the_source_was_wrong() -> None:
    """All heads count, and a box that is smaller than a cell of the smallest map still has one."""
    walk = Guided()
    steer, level = walk.steer(), walk.model.schedule.walk()[0]
    energies, _ = steer.slope(walk.start, level, [0])
    assert abs(float(energies[0] - walk.case.expected["loss_half_heads"])) > 0.01
    tiny = Box(*walk.case.args["box_tiny"][0][0])
    assert not tiny.is_small((8, 8)) and tiny.is_small((4, 4)) and tiny.cells((4, 4)).sum() == 1
    goal = Goal(tuple(walk.case.args["tiny_positions"][0]), tiny)
    energies, gradient = Slope(
        walk.model, walk.model.unet, walk.case.inputs["cond"], Layout([[goal]], layout_sites(walk.model.unet))
    )(walk.start, level, [0])
    assert float(energies[0]) < float(walk.case.expected["loss_tiny_box"]) - 0.01  # there a third of it was lost
    assert float(gradient.abs().max()) > 0


def test_the_same_move_in_either_scale() -> None:
    """y = x / sqrt(1 + sigma^2) on a table of betas moves as x does in sigmas, for both methods."""
    in_sigma, case = Model(Sigmas.from_betas(BETAS)), golden_case("layout_guidance")
    level = in_sigma.schedule.walk()[3]
    deviation = math.sqrt(1 + level.noise**2)
    in_beta, same = Model(BetaSchedule.from_betas(BETAS)), Level(level.told, 1 / deviation, level.noise / deviation, 3)
    y = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    layout = Layout([goals(case, "boxes")], layout_sites(in_beta.unet))
    excite = Excite([[(2,), (10,)]], excite_sites(in_beta.unet))
    for kind, energy in ((SteerLayout, layout), (SteerExcite, excite)):
        moved = [
            kind(Slope(model, model.unet, case.inputs["cond"], energy), STEPS)(latent, at)
            for model, latent, at in ((in_sigma, deviation * y, level), (in_beta, y, same))
        ]
        torch.testing.assert_close(moved[0] / deviation, moved[1], rtol=1e-4, atol=1e-4)
        assert not torch.equal(moved[1], y)


@pytest.fixture(scope="module")
def excited() -> GoldenCase:
    return golden_case("attend_excite")


def excite_slope(case: GoldenCase) -> Slope:
    model = Model(BetaSchedule.from_betas(BETAS))
    energy = Excite([[(token,) for token in case.args["token_indices"]]], by_resolution(model.unet)[2])
    return Slope(model, model.unet, case.inputs["cond"], energy)


def test_excite_first_pass(excited: GoldenCase) -> None:
    slope, level = excite_slope(excited), BetaSchedule.from_betas(BETAS).level(901)
    maps = AttentionMaps()
    with torch.no_grad(), attention_mode(slope.unet, {slope.energy.sites: Observe(maps)}):
        slope.denoiser.predict(excited.inputs["latents"], torch.tensor([901]), excited.inputs["cond"])
    excited.assert_close("map", mean_map(maps)[0])
    assert isinstance(slope.energy, Excite)
    excited.assert_close("max_first", slope.energy.peaks(maps, 0, 0))
    energies, gradient = slope(excited.inputs["latents"], level, [0])
    excited.assert_close("loss_first", energies[0])
    excited.assert_close("grad_first", gradient)
    excited.assert_close("smooth", smooth(excited.inputs["smooth"][None])[0])
    settings = ExciteSettings()
    excited.assert_close("step_sizes", torch.tensor([settings.step_size(index, 10) for index in range(10)]))


@pytest.mark.parametrize("name", ["plain", "refine", "late"])
def test_excite_walks(excited: GoldenCase, name: str) -> None:
    asked = excited.args["runs"][name]
    thresholds = {int(step) / 10: value for step, value in asked["thresholds"].items()}
    settings = ExciteSettings(until=min(asked["max_iter_to_alter"] / 10, 1.0), thresholds=thresholds)
    slope = excite_slope(excited)
    levels = DDIM().levels(slope.denoiser.schedule, 10)
    excited.assert_close("timesteps", torch.tensor([int(level.told) for level in levels[:-1]]))
    steer, after = SteerExcite(slope, 10, settings), {}
    denoise = estimator(guided(slope.denoiser, 7.5, excited.inputs["uncond"]), excited.inputs["cond"])
    with torch.no_grad():
        run(DDIM(), levels[:4], excited.inputs["latents"], denoise, no_noise, before=[steer],
            callback=lambda step: after.update({step.index + 1: step.x}))  # fmt: skip
    for step in (1, 3):
        excited.assert_close(f"{name}.latents_{step}", after[step])
    # the source asks once more than it has to where it refines, and in steps where nothing is moved any more
    peaks = iter(excited.expected[f"{name}.max"].tolist())
    for step, passes in enumerate(excited.expected[f"{name}.passes"].tolist()):
        theirs = [1 - min(next(peaks)) for _ in range(passes)]
        theirs = [a for a, b in itertools.pairwise([*theirs, None]) if a != b]
        ours = [energy for index, energy in steer.losses[0] if index == step]
        if settings.until * 10 > step:
            assert ours == pytest.approx(theirs, abs=4e-4)
        else:
            assert not ours


def test_settings_that_mean_nothing() -> None:
    layouts: list[dict[str, Any]] = [{"scale": 0.0}, {"until": 1.5}, {"iterations": 0}, {"threshold": math.nan}]
    for wrong in layouts:
        with pytest.raises(UserError):
            LayoutSettings(**wrong)
    excites: list[dict[str, Any]] = [{"scale": math.inf}, {"until": -0.1}, {"thresholds": {0.0: 2.0}}]
    for wrong in excites:
        with pytest.raises(UserError):
            ExciteSettings(**wrong)

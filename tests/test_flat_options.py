"""Many options under flat names, a few dataclasses inside."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest

from ldm.flat_options import flat
from ldm.models.diffusion.gaussian import ScheduleOptions
from ldm.models.diffusion.network import Start
from ldm.util import ConfigError, instantiate_from_config


@dataclasses.dataclass(frozen=True)
class Paint:
    colour: str = "red"
    layers: int = 1


class Wall:
    @flat(paint=Paint)
    def __init__(self, height: float, *, paint: Paint) -> None:
        self.height, self.paint = height, paint


class House(Wall):
    def __init__(self, rooms: int = 3, **wall: Any) -> None:
        super().__init__(**wall)
        self.rooms = rooms


def test_flat_names_fill_the_group_and_defaults_the_rest() -> None:
    wall = Wall(2.5, layers=3)
    assert (wall.height, wall.paint) == (2.5, Paint("red", 3))
    assert House(height=2.0, colour="blue").paint == Paint("blue", 1)
    assert list(inspect.signature(Wall).parameters) == ["height", "colour", "layers"]


def test_an_unknown_name_is_told_with_the_nearest_three() -> None:
    for build in (Wall, House):
        with pytest.raises(ConfigError, match="no parameter 'color'; the nearest that it has: colour, "):
            build(height=2.0, color="blue")


@pytest.mark.parametrize(
    ("target", "wrong", "right"),
    [
        ("ldm.models.diffusion.ddpm.LatentDiffusion", "linear_strat", "linear_start"),
        ("ldm.models.diffusion.ddpm.LatentInpaintDiffusion", "ckpt_paht", "ckpt_path"),
        ("ldm.modules.diffusionmodules.openaimodel.UNetModel", "num_head", "num_heads"),
    ],
)
def test_a_configuration_is_told_the_nearest_three(target: str, wrong: str, right: str) -> None:
    with pytest.raises(ConfigError, match=f"has no parameter '{wrong}'; the nearest that it has: {right}, [a-z_]+, "):
        instantiate_from_config({"target": target, "params": {wrong: 1}})


def test_groups_have_the_names_of_public_configurations() -> None:
    names = {field.name for group in (ScheduleOptions, Start) for field in dataclasses.fields(group)}
    assert {"timesteps", "linear_start", "linear_end", "parameterization", "ckpt_path", "ignore_keys"} <= names

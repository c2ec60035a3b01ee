"""The recipe of restyling: one list of options for Python, the commands and the records."""

from __future__ import annotations

import json
import sys
from dataclasses import fields, replace
from typing import Any

import pytest

from ldm.commands import styleid as command
from ldm.workflows.restyle.checks import checked
from ldm.workflows.restyle.plan import StyleIDOptions
from ldm.workflows.restyle.recipe import Recipe
from tests import forked

OTHER: dict[str, Any] = {  # a value of each that is not the usual one, and how it is typed
    "gamma": (0.3, "0.3"), "T": (1.1, "1.1"), "gamma_schedule": ("0.9,0.5", "0.9,0.5"), "pi": (0.5, "0.5"),
    "mix": ("competition", "competition"), "sharpen": (True, None), "detail": (0.2, "0.2"),
    "outside": ("free", "free"), "feather": (1.5, "1.5"),
    "attn_layer": ("2", "2"), "inversion": ("fixed_point", "fixed_point"),
    "ddim_inv_steps": (20, "20"), "save_feat_steps": (10, "10"), "start_step": (7, "7"),
    "fast": (True, None), "adaptive": (0.5, "0.5"), "share": (0.5, "0.5"), "low_frequencies": (0.5, "0.5"),
    "adain_deviation": (0.5, "0.5"), "adain_flat": (0.5, "0.5"), "inversion_rounds": (1, "1"),
    "settle": (4, "4"), "distill": (1, "1"), "negative": ("a dog", "a dog"), "negative_scale": (2.0, "2"),
    "ddim_eta": (0.5, "0.5"), "seed": (3, "3"), "without_init_adain": (True, None),
    "without_attn_injection": (True, None), "keep_flat": (0.5, "0.5"), "keep_color": (True, None),
}  # fmt: skip


NEEDED: dict[str, Any] = {  # without, it is nothing
    "seed": {"ddim_eta": 1.0}, "negative_scale": {"negative": "a dog"},
    "inversion_rounds": {"inversion": "fixed_point"},
}  # fmt: skip


@pytest.mark.parametrize("name", [field.name for field in fields(Recipe)])
def test_every_field_is_an_option_a_flag_and_in_the_record(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value, typed = OTHER[name]
    monkeypatch.setattr(sys, "argv", ["run_styleid.py", f"--{name}", *([] if typed is None else [typed])])
    parsed = vars(command.parse())
    assert parsed == {name: value}  # and nothing else, so that defaults stand in one place
    usual = StyleIDOptions(**NEEDED.get(name, {}))
    options = checked(replace(usual, **parsed))
    recipe = Recipe.of(options)
    assert getattr(recipe, name) == value
    assert recipe.settled(False).parameters() != Recipe.of(usual).settled(False).parameters()


def test_a_record_has_the_keys_that_it_has_always_had() -> None:
    """Otherwise a run would make again what is finished."""
    said = Recipe(outside="free").settled(True).parameters()
    assert set(Recipe().settled(True).parameters()) - set(said) == {"outside", "feather"}
    assert set(said) == {
        "gamma", "T", "gamma_schedule", "pi", "mix", "sharpen", "detail", "attn_layer", "ddim_inv_steps",
        "save_feat_steps", "start_step", "ddim_eta", "seed", "init_adain", "attn_injection", "keep_color",
    }  # fmt: skip
    assert (said["gamma"], said["T"], said["pi"], said["mix"], said["detail"]) == (0.2, 2.0, 0.9, "mass", 0.3)
    plain = Recipe(detail=0.0, ddim_eta=0.0, seed=5).settled(False).parameters()
    assert (plain["gamma"], plain["T"], plain["detail"], plain["seed"]) == (0.75, 1.5, None, None)
    assert plain["init_adain"] and plain["attn_injection"]


NEW_OPTION = """
import json, sys, types
from pathlib import Path

path = Path("ldm/workflows/restyle/recipe.py")
source = path.read_text()
line = '    keep_color: bool = option('
assert source.count(line) == 1
source = source.replace(line, '    blur: float = option(0.0, "radius of a blur", type=float)\\n' + line)
import ldm.workflows.restyle
module = types.ModuleType("ldm.workflows.restyle.recipe")
sys.modules[module.__name__] = module
exec(compile(source, str(path), "exec"), module.__dict__)

sys.argv = ["run_styleid.py", "--blur", "2.5"]
from ldm.commands.styleid import parse
from ldm.workflows.restyle.plan import StyleIDOptions
options = StyleIDOptions(**vars(parse()))
recipe = module.Recipe.of(options).settled(False)
print(json.dumps([options.blur, recipe.blur, recipe.parameters()["blur"]]))
"""


def test_a_new_option_is_one_field_in_one_file() -> None:
    """With a field more in recipe.py it is a flag, an option, in the recipe that stylise() gets, and in the record."""
    done = forked.run("-c", forked.AFRESH + NEW_OPTION)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [2.5, 2.5, 2.5]


def test_old_import_paths_are_the_same_objects() -> None:
    """Those of documented Python calls."""
    from ldm.workflows import invert, styleid, styleid_plan, stylise
    from ldm.workflows.inversion import invert as inversion
    from ldm.workflows.restyle import plan
    from ldm.workflows.restyle import start as beginnings
    from ldm.workflows.restyle import steps as levels
    from ldm.workflows.restyle import styleid as workflow
    from ldm.workflows.restyle import stylise as tensors

    assert styleid.styleid is workflow.styleid and styleid_plan.StyleIDOptions is plan.StyleIDOptions
    assert stylise.stylise is tensors.stylise and invert.invert_with_features is inversion.invert_with_features
    for module in (stylise, tensors):
        assert module.start_noise is beginnings.start_noise and module.executed_timesteps is levels.executed_timesteps

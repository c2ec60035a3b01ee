"""Contents that prompts make, restyled without an inversion of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ldm.util import UserError
from ldm.workflows.inversion.invert import unet_of
from ldm.workflows.restyle.checks import checked
from ldm.workflows.restyle.plan import StyleIDOptions
from ldm.workflows.restyle.prompted import prompts_of, wishes
from ldm.workflows.restyle.styleid import styleid
from tests.workflows.restyling import STEPS, pixels

PROMPT = "a red circle on a blue background"


@pytest.fixture
def asked(options: StyleIDOptions) -> StyleIDOptions:
    """One prompt with one style."""
    return replace(options, cnt=None, sty=f"{options.sty}/s.png", cnt_prompt=PROMPT, no_sheet=True)


@pytest.fixture
def rows(model: Any) -> Iterator[list[int]]:
    """How many rows each call of the network has."""
    seen = list[int]()
    hook = unet_of(model).register_forward_pre_hook(lambda network, args: seen.append(len(args[0])))
    yield seen
    hook.remove()


@pytest.mark.parametrize("scale", [None, 1.0])
@pytest.mark.parametrize("fast", [False, True])
def test_without_a_style_the_content_comes_back(
    asked: StyleIDOptions, model: Any, rows: list[int], scale: float | None, fast: bool
) -> None:
    bare = replace(asked, scale=scale, fast=fast, without_init_adain=True, without_attn_injection=True)
    (result,) = styleid(bare, model)
    content = result.pair.content
    assert content == Path(asked.output_path) / "contents" / "a_red_circle_on_a_blue_background.png"
    assert np.abs(pixels(result.path) - pixels(content)).max() <= 1
    if not fast:  # a walk to make it, a walk to make it again, and the style's inversion
        width = 2 if scale is None else 1
        assert sorted(rows) == sorted([width] * 2 * STEPS + [1] * STEPS)


def test_a_style_changes_it_and_says_from_what(asked: StyleIDOptions, model: Any, rows: list[int]) -> None:
    (result,) = styleid(asked, model)
    assert result.path.name == "a_red_circle_on_a_blue_background_stylized_s.png"
    assert np.abs(pixels(result.path) - pixels(result.pair.content)).max() > 5
    said = json.loads(result.path.with_suffix(".json").read_text())["parameters"]
    assert said["from_prompt"] == {"prompt": PROMPT, "seed": 22, "scale": 3.0, "size": [32, 32]}
    assert said["start_step"] == STEPS

    rows.clear()
    (again,) = styleid(asked, model)
    assert again.skipped and not rows  # neither generated nor restyled again
    (other,) = styleid(replace(asked, seed=5), model)
    assert other.path.name.endswith("-2.png") and other.pair.content.name.endswith("-2.png")


def test_several_prompts_and_styles(asked: StyleIDOptions, model: Any, tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "b.txt").write_text("a blue square\n\n")
    (tmp_path / "prompts" / "a.txt").write_text("a red circle\na red circle\n")
    several = replace(
        asked, sty=str(Path(str(asked.sty)).parent), cnt_prompt=None, cnt_prompts=str(tmp_path / "prompts"),
        no_sheet=False, output_path=str(tmp_path / "several"),
    )  # fmt: skip
    assert prompts_of(several) == ["a red circle", "a red circle", "a blue square"]
    results = styleid(several, model)
    names = ["a_red_circle_1", "a_red_circle_2", "a_blue_square"]
    assert [r.path.stem for r in results] == [f"{name}_stylized_{style}" for name in names for style in "st"]
    assert (tmp_path / "several" / "contact_sheet.png").is_file()
    first, second = (pixels(results[i].pair.content) for i in (0, 2))
    assert np.abs(first - second).max() > 5  # each has a seed of its own

    alone = replace(several, cnt_prompts=None, cnt_prompt=["a blue square"], seed=24, output_path=str(tmp_path / "one"))
    (same, _) = styleid(alone, model)
    assert np.array_equal(pixels(same.path), pixels(results[4].path))


def test_names_of_contents() -> None:
    made = wishes(["노란 배경 위의 펭귄", "???", "a/b: c", "x" * 99], 7)
    assert [wish.name for wish in made] == ["노란_배경_위의_펭귄", "content", "a_b_c", "x" * 60]
    assert [wish.seed for wish in made] == [7, 8, 9, 10]


REFUSED = [
    ({"cnt": "a.png"}, "--cnt is for contents that are pictures"), ({"pi": 0.5}, "--pi is for contents"),
    ({"inversion": "bdia"}, "--inversion bdia is for contents that are inverted"), ({"start_step": 2}, "--start_step"),
    ({"features": "replay"}, "--features replay is for"), ({"scale": -1.0}, "--scale must be"),
]  # fmt: skip


@pytest.mark.parametrize(("how", "said"), REFUSED)
def test_what_is_refused(asked: StyleIDOptions, how: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        checked(replace(asked, **how))


def test_no_prompt(asked: StyleIDOptions, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no prompt in"):
        prompts_of(replace(asked, cnt_prompt=None, cnt_prompts=str(tmp_path)))

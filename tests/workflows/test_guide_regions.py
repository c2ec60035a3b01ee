"""Boxes as regions: what each is told, what a request does with them, and things in their places."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.control import Box
from ldm.models.diffusion.guidance import guided
from ldm.models.diffusion.loop import ask
from ldm.pictures.images import read_parameters
from ldm.util import ConfigError, UserError
from ldm.workflows.guide.phrases import part, sized
from ldm.workflows.guide.reading import RegionWishes, read_guide
from ldm.workflows.guide.regions import Regions, RegionSettings, RegionWalk, flat_latents, region_settings
from ldm.workflows.prompts import conditions
from ldm.workflows.request import Txt2ImgOptions
from ldm.workflows.studio import Studio, open_studio
from ldm.workflows.txt2img import Made, txt2img
from ldm.workflows.watch import Watch

PROMPT = "a red circle and a blue square on a background"
BOXES = "red circle: 0 0 .5 .5; blue square: .5 .5 1 1"


@pytest.fixture
def options(tmp_path: Path) -> Txt2ImgOptions:
    return Txt2ImgOptions(
        prompt="a red circle on a blue", boxes="red circle: 0 0 .5 .5", layout="regions", outdir=str(tmp_path / "out"),
        steps=4, n_samples=1, skip_grid=True, progress=False,
    )  # fmt: skip


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=int)


@pytest.mark.parametrize(
    ("prompt", "phrases", "told", "rest"),
    [
        (PROMPT, ("red circle", "blue square"), ["a red circle on a background", "a blue square on a background"],
         "on a background"),
        ("oil painting of a cat and the dog in a park, dusk", ("dog", "cat"),
         ["oil painting of the dog in a park, dusk", "oil painting of a cat in a park, dusk"],
         "oil painting in a park, dusk"),
        ("a (red circle:1.3) and a [star] on a hill", ("red circle", "star"),
         ["a (red circle:1.3) on a hill", "a [star] on a hill"], "on a hill"),
        ("a star and a star at sea", ("star#1", "star#2"), ["a star at sea", "a star at sea"], "at sea"),
        ("a meadow", ("a dog",), ["a dog, a meadow"], "a meadow"),
        ("on a meadow", ("a dog", "stars"), ["a dog on a meadow", "stars on a meadow"], "on a meadow"),
        ("a <toy> and a cat", ("<toy>", "cat"), ["a <toy>", "a cat"], ""),
        ("", ("a dog",), ["a dog"], ""),
    ],
)  # fmt: skip
def test_what_each_region_is_told(prompt: str, phrases: tuple[str, ...], told: list[str], rest: str) -> None:
    parted = part(prompt, phrases)
    assert [parted.prompt(phrase) for phrase in parted.phrases] == told
    assert parted.rest == rest


def test_sizes_that_a_model_has() -> None:
    sizes = {"small": 0.5, "large": 0.8}
    settings = RegionSettings(True, None, 0, sizes)
    assert [settings.size_for(Box(0, 0, side, 1)) for side in (0.3, 0.6, 0.7, 1)] == ["small"] * 2 + ["large"] * 2
    assert RegionSettings(True, None, 0).size_for(Box(0, 0, 1, 1)) == ""
    assert sized("an apple", "small", sizes) == "a small apple" and sized("stars", "large", sizes) == "a large stars"
    assert sized("a Large apple", "small", sizes) == "a Large apple"


def test_what_a_yaml_says() -> None:
    asked = RegionWishes()
    assert region_settings(asked, {}) is None
    assert region_settings(RegionWishes("gradient"), {"layout": "regions"}) is None
    usual = {"layout": "regions", "regions": {"view": "centred", "sizes": {"small": 0.5}}}
    assert region_settings(asked, usual) == RegionSettings(True, None, 0.0, {"small": 0.5})
    assert region_settings(RegionWishes("regions"), {}) == RegionSettings(False, None, 0.2)
    assert region_settings(RegionWishes(view="whole", bootstrap=0.4, background="x"), usual) == RegionSettings(
        False, "x", 0.4, {"small": 0.5}
    )
    for wrong in ({"layout": "rooms"}, {"regions": {"view": "far"}}, {"regions": "centred"}):
        with pytest.raises(ConfigError, match="inference: layout is gradient or regions"):
            region_settings(asked, wrong)


@pytest.mark.parametrize("view", ["whole", "centred"])
def test_predictions_are_their_phrases_and_the_rests(options: Txt2ImgOptions, model: Any, view: str) -> None:
    """In the middle of each box that of its own prompt, far from both that of the background's."""
    guide = read_guide(replace(options, boxes="red: 0 0 .5 .5; square: .5 .5 1 1", prompt=PROMPT))
    assert guide is not None
    wishes = RegionWishes("regions", view, "blue", 0.0)
    settings = region_settings(wishes, {})
    assert settings is not None
    regions = Regions.of(guide, settings)
    noise = torch.randn(2, 4, 24, 24, generator=torch.Generator().manual_seed(1))
    level = model.schedule.levels(4)[0]

    def led(prompts: Any) -> Any:
        return conditions(model, prompts, "", (24, 24), True)

    def alone(prompt: str, shift: tuple[int, int]) -> torch.Tensor:
        cond, away = led([prompt] * 2)
        denoiser = guided(model, 3.0, away)
        return ask(denoiser, noise.roll(shift, (2, 3)), level, cond).roll((-shift[0], -shift[1]), (2, 3))

    prompts = [PROMPT, PROMPT]
    told = regions.prompts(model, PROMPT)
    assert told == ["a red on a background", "square on a background", "blue"]
    with torch.no_grad():
        out = ask(regions.denoiser(model, prompts, led, 3.0, RegionWalk(noise, 4)), noise, level, None)
        shifts = [(6, 6), (-6, -6), (0, 0)] if view == "centred" else [(0, 0)] * 3
        cells = [(4, 4), (20, 20), (4, 20)]
        answers = [alone(prompt, shift) for prompt, shift in zip(told, shifts, strict=True)]
    for own, (row, column) in zip(answers, cells, strict=True):
        assert torch.allclose(out[..., row, column], own[..., row, column], atol=1e-3)
    for one, other in itertools.combinations(answers, 2):
        assert float((one - other).abs().max()) > 1e-2


def test_a_request_with_regions(options: Txt2ImgOptions, model: Any) -> None:
    made: list[Made] = []
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plain = pixels(txt2img(replace(options, boxes=None, layout=None, skip_save=True), model)[0])
    (image,) = txt2img(options, model, Watch(on_result=made.append))
    assert abs(pixels(image) - plain).max() > 1 and made[0].boxed is not None
    about = read_parameters(Path(options.outdir) / "samples" / "00000.png")
    assert isinstance(about, dict)
    assert about["layout"] == "regions" and about["boxes"] == {"red circle": "0 0 .5 .5"}
    assert about["regions"] == ["a red circle on a blue", "on a blue"] and about["layout_bootstrap"] == 0.2
    others = ({"layout_background": "a square"}, {"layout_view": "centred"}, {"layout_bootstrap": 0.0})
    changed = [pixels(txt2img(replace(options, skip_save=True, **other), model)[0]) for other in others]
    assert all(abs(one - pixels(image)).max() > 0 for one in changed)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("sampler", "view", "excite"), [("dpm_solver", "whole", None), ("euler_ancestral", "centred", "circle")]
)
def test_a_picture_of_regions_is_its_seed(
    options: Txt2ImgOptions, model: Any, sampler: str, view: str, excite: str | None
) -> None:
    """At any batch size, and together with neglected words."""
    quiet = replace(options, skip_save=True, sampler=sampler, layout_view=view, layout_bootstrap=0.5, excite=excite)
    quiet = replace(quiet, boxes="circle: 0 0 .5 .5, .5 .5 1 1", excite_until=0.4, excite_scale=1.0, steps=2)
    together = txt2img(replace(quiet, n_samples=2), model)
    alone = txt2img(replace(quiet, seed=43), model)
    assert abs(pixels(together[1]) - pixels(alone[0])).max() <= 1


def test_flat_colours(model: Any) -> None:
    colours = flat_latents(model)
    assert colours.shape[1:] == (model.channels, 1, 1) and len(colours) > 3
    assert len({tuple(colour.flatten().tolist()) for colour in colours}) == len(colours)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"boxes": None}, "--layout regions needs --boxes"),
        ({"boxes": "red#2: 0 0 .5 .5"}, "1 times, so there is no 'red#2'"),
        ({"layout": "rooms"}, "--layout is gradient or regions, got 'rooms'"),
        ({"layout_view": "far"}, "--layout_view is whole or centred, got 'far'"),
        ({"layout_bootstrap": 2.0}, "--layout_bootstrap must lie between 0 and 1"),
        ({"boxes": "red circle: 0 0 0 .5"}, "empty or inverted"),
    ],
)
def test_what_is_refused(options: Txt2ImgOptions, model: Any, change: dict[str, Any], what: str) -> None:
    with pytest.raises(UserError, match=what):
        txt2img(replace(options, **change), model)
    assert not list(Path(options.outdir).rglob("*.png"))


@pytest.fixture(scope="module")
def shipped() -> Studio:
    return open_studio(None, device="cpu", precision="full")


def test_things_stand_in_their_boxes(options: Txt2ImgOptions, shipped: Studio) -> None:
    """On the shipped model, whose own way regions are: two shapes on a diagonal, which no prompt of its says."""
    asked = replace(
        options, prompt="a purple square and a yellow circle on a white background", layout=None, steps=8,
        boxes="purple square: .5 0 1 .5; yellow circle: 0 .5 .5 1", skip_save=True,
    )  # fmt: skip
    (image,) = txt2img(asked, shipped)
    rgb = pixels(image.convert("RGB"))
    purple = (rgb[..., 1] < 110) & (rgb[..., 2] > 100)
    yellow = (rgb[..., 2] < 130) & (rgb[..., 0] > 180)
    for seen, (row, column) in ((purple, (0.25, 0.75)), (yellow, (0.75, 0.25))):
        rows, columns = np.nonzero(seen)
        assert 0.08 < seen.mean() < 0.3
        assert abs(rows.mean() / 128 - row) < 0.06 and abs(columns.mean() / 128 - column) < 0.06

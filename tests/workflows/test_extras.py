"""Several prompts in a line, choices, wildcard files, variations of a seed, a second pass, tiles."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.models.diffusion.noise import ImageNoise
from ldm.pictures.images import read_parameters
from ldm.util import UserError
from ldm.workflows.batches import between
from ldm.workflows.img2img import Img2ImgOptions, img2img
from ldm.workflows.inpaint import InpaintOptions, inpaint
from ldm.workflows.prompt_lists import combinations, expanded, several
from ldm.workflows.request import read_request
from ldm.workflows.txt2img import Txt2ImgOptions, txt2img
from ldm.workflows.watch import Watch
from tests.workflows.test_img2img import picture, pixels


@pytest.fixture
def options(tmp_path: Path) -> Txt2ImgOptions:
    return Txt2ImgOptions(
        prompt="a red circle", n_samples=2, steps=4, guidance_scale=3.0, seed=7, skip_grid=True, skip_save=True,
        outdir=str(tmp_path / "out"), progress=False,
    )  # fmt: skip


def same(made: list[Image.Image], expected: list[Image.Image], within: int = 1) -> bool:
    return all(abs(pixels(a) - pixels(b)).max() <= within for a, b in zip(made, expected, strict=True))


@pytest.mark.parametrize(
    ("text", "prompts"),
    [
        ("a cat", ["a cat"]), ("a cat | a dog", ["a cat", "a dog"]), (" a|b |c ", ["a", "b", "c"]), ("a | ", ["a"]),
        ("{a|b} c | d", ["{a|b} c", "d"]), ("[a|b] c", ["[a|b] c"]), ("(a | b:1.2)", ["(a | b:1.2)"]),
        (r"a \| b", ["a | b"]), ("", [""]), (" | ", [""]), ("a) | b", ["a)", "b"]),
        ("<lora:a|b:1> | c", ["<lora:a|b:1>", "c"]),
    ],
)  # fmt: skip
def test_prompts_that_a_line_parts(text: str, prompts: list[str]) -> None:
    assert several(text) == prompts


def test_combinations() -> None:
    assert combinations("a | b | c") == ["a", "a, b", "a, c", "a, b, c"]
    with pytest.raises(UserError, match="11 optional parts would be 2048 prompts"):
        combinations("|".join("abcdefghijkl"))


def test_each_prompt_of_a_line_is_as_if_it_were_alone(model: Any, options: Txt2ImgOptions) -> None:
    seeds: list[tuple[str, int]] = []
    both = txt2img(
        replace(options, prompt="a red circle | a blue square", n_iter=2), model,
        Watch(on_result=lambda one: seeds.append((one.prompt, one.seed))),
    )  # fmt: skip
    first, second = (txt2img(replace(options, prompt=p, n_iter=2), model) for p in ("a red circle", "a blue square"))
    assert same(both, [*first, *second])
    assert seeds == [(p, s) for p in ("a red circle", "a blue square") for s in (7, 8, 9, 10)]


def test_choices_are_a_function_of_the_seed(tmp_path: Path) -> None:
    (tmp_path / "things").mkdir()
    (tmp_path / "colour.txt").write_text("# colours\nred\nblue\ngreen\n")
    (tmp_path / "things/shape.txt").write_text("{round|square} box\na __colour__ star\n")
    text = "__things/shape__ on {black|white}, __colour__"
    found = [expanded(text, seed, str(tmp_path)) for seed in range(200)]
    assert found == [expanded(text, seed, str(tmp_path)) for seed in range(200)]
    shapes = {"round box", "square box", "a red star", "a blue star", "a green star"}
    assert {one.split(" on ")[0] for one in found} == shapes
    assert {one.split(", ")[1] for one in found} == {"red", "blue", "green"}
    assert {one.split(" on ")[1].split(",")[0] for one in found} == {"black", "white"}


def test_wildcard_files_that_do_not_fit(tmp_path: Path) -> None:
    (tmp_path / "colour.txt").write_text("red\n")
    (tmp_path / "empty.txt").write_text("# nothing\n\n")
    (tmp_path / "loop.txt").write_text("a __loop__\n")
    (tmp_path.parent / "secret.txt").write_text("secret\n")
    for text, message in (
        ("__color__", "'__color__' in the prompt is a line of '.*color.txt': no such file; the nearest .* colour"),
        ("__empty__", "wildcard file '.*empty.txt' is empty"),
        ("__loop__", "call each other without end"),
        ("__x/../../secret__", "no such file"),
    ):
        with pytest.raises(UserError, match=message):
            expanded(text, 1, str(tmp_path))
    with pytest.raises(UserError, match="no such file; --wildcards names another folder"):
        read_request(Txt2ImgOptions(prompt="__colour__", wildcards="none", skip_grid=True, skip_save=True))


def test_a_picture_says_what_was_chosen(model: Any, options: Txt2ImgOptions, tmp_path: Path) -> None:
    (tmp_path / "colour.txt").write_text("red\nblue\n")
    asked = replace(options, prompt="a __colour__ {circle|square}", wildcards=str(tmp_path), n_samples=8)
    made = txt2img(replace(asked, skip_save=False), model)
    said = [read_parameters(path) for path in sorted((tmp_path / "out" / "samples").iterdir())]
    prompts = [about["prompt"] for about in said if isinstance(about, dict)]
    assert len(set(prompts)) > 1 and all(set(p.split()) <= {"a", "red", "blue", "circle", "square"} for p in prompts)
    alone = txt2img(replace(options, prompt=prompts[3], n_samples=1, seed=10), model)
    assert same([made[3]], alone)


def test_noise_on_the_way_to_other_noise_stays_as_large() -> None:
    a, b = ImageNoise([1, 2]).draw((4, 16, 16)), ImageNoise([3, 4]).draw((4, 16, 16))
    b *= (a.flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)).reshape(2, 1, 1, 1)
    for share in (0.0, 0.25, 0.5, 1.0):
        c = between(a, b, share)
        norms = torch.stack([x.flatten(1).norm(dim=1) for x in (a, b, c)])
        assert norms[:2].min() * 0.99 < norms[2].min() and norms[2].max() < norms[:2].max() * 1.01
        angle = math.acos(float((a[0] * c[0]).sum() / a[0].norm() / c[0].norm()) if share else 1.0)
        whole = math.acos(float((a[0] * b[0]).sum() / a[0].norm() / b[0].norm()))
        assert angle == pytest.approx(share * whole, abs=2e-3)
    assert torch.allclose(between(a, b, 0.0), a) and torch.allclose(between(a, b, 1.0), b, atol=1e-5)
    assert torch.allclose(between(a, a, 0.5), a)


def test_variations_of_a_seed(model: Any, options: Txt2ImgOptions, tmp_path: Path) -> None:
    plain = txt2img(replace(options, n_samples=1), model)
    other = txt2img(replace(options, seed=70), model)
    near, none, whole = (
        txt2img(replace(options, variation_seed=70, variation_strength=strength), model) for strength in (0.1, 0.0, 1.0)
    )
    assert same(none, [plain[0], plain[0]]) and same(whole, other)
    distance = [abs(pixels(one) - pixels(plain[0])).mean() for one in (*near, *other)]
    assert 0 < max(distance[:2]) < min(distance[2:])
    txt2img(replace(options, variation_seed=70, skip_save=False), model)
    about = read_parameters(tmp_path / "out" / "samples" / "00001.png")
    assert isinstance(about, dict)
    assert (about["seed"], about["variation_seed"], about["variation_strength"]) == (7, 71, 0.1)


def test_a_second_pass_is_image_to_image_at_the_larger_size(
    model: Any, options: Txt2ImgOptions, tmp_path: Path
) -> None:
    first = txt2img(replace(options, n_samples=1), model)
    (made,) = txt2img(replace(options, n_samples=1, hires=1.5, hires_strength=0.5, skip_save=False), model)
    assert made.size == (48, 48)
    large = first[0].resize((48, 48), Image.Resampling.LANCZOS)
    (expected,) = img2img(
        Img2ImgOptions(prompt="a red circle", init_img=large, strength=0.5, n_samples=1, steps=4, guidance_scale=3.0,
                       seed=7, skip_grid=True, skip_save=True, progress=False), model,
    )  # fmt: skip
    assert same([made], [expected])
    about = read_parameters(tmp_path / "out" / "samples" / "00000.png")
    assert isinstance(about, dict) and (about["hires"], about["hires_strength"], about["width"]) == (1.5, 0.5, 32)


def test_tiles_fit_whatever_way_they_are_shifted(model: Any, options: Txt2ImgOptions) -> None:
    """With the start noise rolled by whole cells the picture is rolled, by as many pixels: it has no border."""

    class Rolled(ImageNoise):
        def draw(self, shape_of_one: Any) -> torch.Tensor:
            return super().draw(shape_of_one).roll((3, 2), (-2, -1))

    asked = replace(options, tiling=True)
    made = txt2img(asked, model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ldm.workflows.generate.ImageNoise", Rolled)
        shifted = txt2img(asked, model)
        plain = txt2img(options, model)
    for one, other in zip(made, shifted, strict=True):
        assert abs(np.roll(pixels(one), (12, 8), (0, 1)) - pixels(other)).max() <= 1
    untiled = txt2img(options, model)
    assert abs(np.roll(pixels(untiled[0]), (12, 8), (0, 1)) - pixels(plain[0])).max() > 3, "others have one"
    assert not same(untiled, made) and same(untiled, txt2img(options, model)), "nothing stays on the model"


def test_extras_that_do_not_fit_are_one_sentence(model: Any, options: Txt2ImgOptions) -> None:
    changes: list[tuple[dict[str, Any], str]] = [
        ({"variation_strength": 0.5}, "--variation_strength needs the seed"),
        ({"variation_seed": 1, "variation_strength": 1.5}, "--variation_strength must lie between 0 and 1"),
        ({"variation_seed": -5}, "a seed must lie between"),
        ({"hires": 0.5}, "--hires must be a factor from 1 to 8"),
        ({"hires": 2, "hires_strength": -1}, "--hires_strength must lie between 0 and 1"),
        ({"hires_steps": 5}, "--hires_steps needs --hires"),
        ({"hires": 2, "edit": "a blue circle"}, "do not go together with --variation_seed or --hires"),
        ({"prompt": "a | b", "edit": "a blue circle"}, "--edit is another prompt for one prompt"),
    ]
    for change, message in changes:
        with pytest.raises(UserError, match=message):
            txt2img(replace(options, **change), model)
    with pytest.raises(UserError, match="--hires paints over whole pictures"):
        inpaint(InpaintOptions(init_img=picture(32, 32), mask=torch.ones(32, 32), hires=2.0, steps=1, n_samples=1,
                               skip_grid=True, skip_save=True, progress=False), model)  # fmt: skip

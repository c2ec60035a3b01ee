"""Restyling, inversion and looking inside on a network of Stable Diffusion XL's shape, by their commands."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

from ldm.commands import styleid as command
from ldm.control import by_resolution, late_decoder, sites
from ldm.models.diffusion.loop import estimator
from ldm.models.diffusion.loop import run as walk
from ldm.models.diffusion.noise import ImageNoise
from ldm.models.diffusion.samplers.fixed_point import FixedPoint
from ldm.models.diffusion.sampling import sample
from ldm.util import UserError, instantiate_from_config
from ldm.workflows.inversion.empty_prompt import EmptyPrompt
from ldm.workflows.inversion.invert import Inversion, unet_of
from ldm.workflows.look.attention_maps import course_of_prompt
from ldm.workflows.restyle.layers import changed_layers
from ldm.workflows.restyle.plan import StyleIDOptions
from ldm.workflows.restyle.recipe import Recipe
from ldm.workflows.restyle.steps import executed_levels, way_of
from ldm.workflows.restyle.styleid import styleid
from ldm.workflows.studio import Studio, open_studio
from scripts import attention_histogram, attention_map, invert
from tests.helpers import ROOT
from tests.workflows.restyling import CLOSE, difference, made, only, picture
from tests.workflows.small_xl import LEVELS_OF_XL, POOLED, write_small_xl

STEPS = 4


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a content that is no square, and a style of another size."""
    folder = tmp_path_factory.mktemp("xl")
    write_small_xl(folder / "model", **LEVELS_OF_XL)
    picture(folder / "photo.png", 0, (32, 48))
    picture(folder / "art.png", 1, (32, 32))
    return folder


@pytest.fixture(scope="module")
def studio(place: Path) -> Studio:
    return open_studio(place / "model" / "model.safetensors", device="cpu")


@pytest.fixture
def options(place: Path, tmp_path: Path) -> StyleIDOptions:
    return StyleIDOptions(
        cnt=str(place / "photo.png"), sty=str(place / "art.png"), output_path=str(tmp_path / "out"),
        precomputed=str(tmp_path / "cache"), ddim_inv_steps=STEPS, save_feat_steps=STEPS, precision="full",
        no_sheet=True, progress=False,
    )  # fmt: skip


def run(monkeypatch: pytest.MonkeyPatch, program: Any, place: Path, *arguments: object) -> None:
    weights = place / "model" / "model.safetensors"
    monkeypatch.setattr(sys, "argv", [str(a) for a in ("command", "--ckpt", weights, "--device", "cpu", *arguments)])
    program.main()


def test_layers_by_block_and_level(studio: Studio) -> None:
    """The decoder's blocks are 0 and 1 at a quarter of the latent's size, two layers deep, 2 and 3 at half of it."""
    usual = changed_layers(studio.model)
    assert usual.blocks == (2, 3) and len(usual.attention) == 2
    unet = unet_of(studio.model)
    assert set(usual.attention) == set(sites(unet, "output_blocks", resolution=2))
    deep = changed_layers(studio.model, "1")
    assert [name.split(".")[4] for name in deep.attention] == ["0", "1"]
    one = changed_layers(studio.model, "2, output_blocks.{0,1}.1.transformer_blocks.1")
    assert one.blocks == (2, "output_blocks.{0,1}.1.transformer_blocks.1")
    assert [name.split(".")[1] for name in one.attention] == ["0", "1", "2"]


@torch.no_grad()
def test_nothing_is_zeros_and_the_size_of_the_picture(studio: Studio) -> None:
    nothing = EmptyPrompt(studio.model)
    wide, square = nothing.at((4, 6)), nothing.at((4, 4))
    assert wide is nothing.at((4, 6)) and not wide["c_crossattn"][0].any() and not wide["c_adm"][:, :POOLED].any()
    sizes = studio.model.condition([""], size=(4, 6))["c_adm"][:, POOLED:]
    assert torch.equal(wide["c_adm"][:, POOLED:], sizes) and not torch.equal(wide["c_adm"], square["c_adm"])


@pytest.mark.parametrize("features", ["memory", "replay"])
def test_the_network_is_told_each_pictures_own_size(features: str, options: StyleIDOptions, studio: Studio) -> None:
    told: set[tuple[int, tuple[float, ...]]] = set()

    def note(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        told.update((args[0].shape[-1], tuple(row.tolist())) for row in kwargs["y"])

    hook = unet_of(studio.model).register_forward_pre_hook(note, with_kwargs=True)
    only(replace(options, features=features), studio)
    hook.remove()
    with torch.no_grad():
        nothing = EmptyPrompt(studio.model)
        assert told == {(w, tuple(nothing.at((8, w))["c_adm"][0].tolist())) for w in (8, 12)}


def test_where_sampling_begins(studio: Studio) -> None:
    """The inversion ends at sigma 14.6; as noise of the next level it is as large as latents are there."""
    schedule, recipe = studio.model.schedule, Recipe(ddim_inv_steps=10, save_feat_steps=10)
    end, first = schedule.upwards(10)[-1], executed_levels(schedule, 10)[0]
    noise = ImageNoise([0]).draw((4, 8, 8))
    inversion = Inversion({}, {}, (1 + end.noise**2) ** 0.5 * noise)
    start = way_of(schedule, recipe).start(inversion, first, end)
    assert first.noise < 0.8 * end.noise
    torch.testing.assert_close(start, (1 + first.noise**2) ** 0.5 * noise)


def test_restyling_by_the_command(
    place: Path, options: StyleIDOptions, studio: Studio, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run(monkeypatch, invert, place, "--cnt", options.cnt, "--sty", options.sty, "--precomputed", options.precomputed,
        "--ddim_inv_steps", STEPS, "--precision", "full")  # fmt: skip
    kept = {path: path.stat().st_mtime_ns for path in Path(options.precomputed).iterdir()}
    assert len(kept) == 2
    run(monkeypatch, command, place, "--cnt", options.cnt, "--sty", options.sty, "--outdir", tmp_path / "typed",
        "--ddim_inv_steps", STEPS, "--save_feat_steps", STEPS, "--precision", "full", "--no_sheet",
        "--precomputed", options.precomputed)  # fmt: skip
    assert {path: path.stat().st_mtime_ns for path in Path(options.precomputed).iterdir()} == kept, "not inverted again"
    about = json.loads((tmp_path / "typed" / "photo_stylized_art.json").read_text())["parameters"]
    assert about["attn_layer"] == [2, 3] and (about["width"], about["height"]) == (48, 32)
    typed = np.asarray(Image.open(tmp_path / "typed" / "photo_stylized_art.png"), dtype=int)
    found = {name: made(replace(options, features=name, precomputed=str(tmp_path / name),
                                output_path=str(tmp_path / f"out-{name}")), studio)
             for name in ("memory", "disk", "replay")}  # fmt: skip
    assert abs(found["memory"]["photo_stylized_art"] - typed).max() <= CLOSE
    assert difference(found["memory"], found["disk"]) <= CLOSE and difference(found["memory"], found["replay"]) <= CLOSE
    plain = only(replace(options, without_attn_injection=True, output_path=str(tmp_path / "plain")), studio)
    assert abs(plain - typed).max() > CLOSE, "attention takes from the style"


@torch.no_grad()
def test_the_way_up_from_the_clean_latent_is_the_way_down(studio: Studio) -> None:
    """The lowest of 50 levels has sigma 0.13, so that taking a clean latent for one there would leave that much."""
    model, rule = studio.model, FixedPoint(10)
    latent, nothing = 0.6 * ImageNoise([1]).draw((4, 8, 8)), EmptyPrompt(model).at((8, 8))
    up = rule.levels(model.schedule, 50)[:4]
    assert up[0].noise == 0 and up[1].noise > 0.1
    x = walk(rule, up, latent, estimator(model, nothing), lambda: torch.zeros_like(latent))
    again = sample(model, x, nothing, steps=50, start=3)
    assert (again - latent).abs().max() < 0.01 < (x - latent).abs().max()


def test_features_of_a_pair_of_1024_pixels_are_counted_in_the_docs() -> None:
    """q of the content, k and v of the style, in half precision, at the 49 levels of 50 that are sampled."""
    params = OmegaConf.load(ROOT / "configs/sdxl/sd_xl_base.yaml").model.params
    node: Any = OmegaConf.to_container(params.network_config)
    with torch.device("meta"):
        unet = instantiate_from_config(node)
    tokens, text = {4: 32**2, 2: 64**2}, (ROOT / "docs/sdxl.md").read_text()
    for pattern, layers, told in ((late_decoder(unet), 6, "4.62 GB"), ("output_blocks", 36, "16.18 GB")):
        parts = by_resolution(unet, pattern, "self")
        width = {name: unet.get_submodule(name).to_q.out_features for part in parts.values() for name in part}
        total = 49 * 3 * 2 * sum(tokens[factor] * width[name] for factor, part in parts.items() for name in part)
        assert len(width) == layers and f"{total / 1e9:.2f} GB" == told and told in text


def test_a_refiner_is_refused(options: StyleIDOptions, tmp_path: Path) -> None:
    weights = write_small_xl(tmp_path / "refiner", refiner=True)
    with pytest.raises(UserError, match=r"is a refiner, which finishes the pictures of another model"):
        styleid(replace(options, ckpt=str(weights), device="cpu"))
    assert not Path(options.precomputed).exists()


def test_maps_of_a_place_a_word_and_components(
    place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = ("--outdir", tmp_path, "--steps", STEPS)
    run(monkeypatch, attention_map, place, *out, "--image", place / "photo.png", "--xy", "20,10")
    run(monkeypatch, attention_map, place, *out, "--prompt", "a red cat", "--word", "cat", "--layers", "1",
        "--save", tmp_path / "kept.safetensors")  # fmt: skip
    run(monkeypatch, attention_map, place, *out, "--image", place / "photo.png", "--pca", "q", "--timesteps", "999")
    assert {path.name for path in tmp_path.iterdir()} >= {"photo_look.png", "a_red_cat_cat.png", "photo_q.png"}
    names = {path.name for path in (tmp_path / "a_red_cat_cat").iterdir()}
    assert names == {f"output1{depth}_t{t}.png" for depth in ("", ".1") for t in (999, 749, 499, 249)}


@torch.no_grad()
def test_what_is_looked_at_is_the_walk_of_the_picture(studio: Studio) -> None:
    """The latents at which the network is asked again are those that it saw: the first is noise at that level."""
    seen: list[Tensor] = []
    schedule = studio.model.schedule
    hook = unet_of(studio.model).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    course = course_of_prompt(studio, "a cat", (32, 48), steps=3, seed=5, guidance_scale=1.0)
    hook.remove()
    for x, (told, latent) in zip(seen, course.visited.items(), strict=True):
        torch.testing.assert_close(schedule.enter(latent, course.levels[told]), x)
    assert torch.equal(course.context["c_adm"], studio.model.condition(["a cat"], size=(8, 12))["c_adm"])


def test_logits_before_and_after(place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run(monkeypatch, attention_histogram, place, "--cnt", place / "photo.png", "--sty", place / "art.png",
        "--xy", "9,14", "--steps", STEPS, "--outdir", tmp_path, "--layers", "output_blocks.1.1.transformer_blocks.1",
        "--attn_layer", "1")  # fmt: skip
    (histogram,) = tmp_path.glob("*_histogram.png")
    rows = (tmp_path / "photo_stylized_art_numbers.csv").read_text().splitlines()
    assert Image.open(histogram).width > 400 and len(rows) == 1 + 2 * 4  # sides, heads

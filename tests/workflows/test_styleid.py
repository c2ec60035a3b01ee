"""Restyling as a function, on a small model with random weights."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.pictures.images import image_to_tensor, load_image, tensor_to_image
from ldm.util import UserError
from ldm.workflows import record
from ldm.workflows.inversion.cache import clean_latent
from ldm.workflows.inversion.invert import invert_with_features
from ldm.workflows.models import open_model
from ldm.workflows.restyle.layers import changed_layers
from ldm.workflows.restyle.plan import StyleIDOptions
from ldm.workflows.restyle.recipe import Recipe
from ldm.workflows.restyle.results import Result
from ldm.workflows.restyle.styleid import styleid
from ldm.workflows.restyle.stylise import start_noise, stylise
from ldm.workflows.studio import Studio
from ldm.workflows.watch import Watch
from tests.workflows.restyling import CLOSE, STEPS, difference, made, one, only, picture, pixels
from tests.workflows.small_model import write_small_model


def test_every_pair_with_its_record_and_a_sheet(options: StyleIDOptions, model: Any) -> None:
    results = styleid(options, model)
    out = Path(options.output_path)
    names = ["a_stylized_s", "b_stylized_s", "a_stylized_t", "b_stylized_t"]
    assert [result.path for result in results] == [out / f"{name}.png" for name in names]
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [f"{name}.{suffix}" for name in names for suffix in ("png", "json")] + ["contact_sheet.png"]
    )
    about = json.loads((out / "b_stylized_t.json").read_text())
    assert about["content"].endswith("cnt/b.png") and about["styles"][0].endswith("sty/t.png")
    assert about["parameters"]["gamma"] == 0.75 and about["parameters"]["T"] == 1.5
    assert about["parameters"]["attn_layer"] == [1] and about["parameters"]["start_step"] == STEPS - 1
    assert (about["parameters"]["width"], about["parameters"]["height"]) == (32, 32)
    assert len({picture.tobytes() for picture in map(pixels, (r.path for r in results))}) == 4


def test_a_result_is_what_the_functions_below_make(options: StyleIDOptions, model: Any) -> None:
    z = [
        clean_latent(model, image_to_tensor(load_image(path))[None])
        for path in (Path(str(options.cnt)) / "a.png", Path(str(options.sty)) / "s.png")
    ]
    context = model.get_learned_conditioning([""])
    where = changed_layers(model, "0,1").attention
    content, style = (invert_with_features(model, x, context, steps=STEPS, sites=where, dtype=None) for x in z)
    latent = stylise(
        model, start_noise(content.noise, [style.noise]), content, [style], context,
        Recipe(save_feat_steps=STEPS, start_step=3, gamma=0.6, T=1.2), sites=where,
    )  # fmt: skip
    with torch.no_grad():
        expected = np.asarray(tensor_to_image(model.decode_first_stage(latent)[0]), dtype=int)
    here = one(options, attn_layer="0,1", start_step=3, gamma=0.6, T=1.2)
    assert abs(only(here, model) - expected).max() <= 1


def test_a_batch_gives_what_single_pictures_give(options: StyleIDOptions, model: Any) -> None:
    singly = made(options, model)
    together = made(replace(options, batch=3, output_path=f"{options.output_path}/batch", precomputed=""), model)
    assert difference(singly, together) <= CLOSE


def test_a_mask_counts_beside_a_picture_without_any_in_a_batch(options: StyleIDOptions, model: Any) -> None:
    """Where gamma, T and detail are said, a picture with a mask and one without have the same recipe."""
    np.save(Path(str(options.cnt)) / "b_mask.npy", np.repeat(np.eye(2, dtype=np.float32), 16, 0).repeat(16, 1))
    said = replace(options, sty=f"{options.sty}/s.png", gamma=0.3, T=1.5, detail=0.2)
    singly = made(said, model)
    together = made(replace(said, batch=2, output_path=f"{options.output_path}/batch"), model)
    assert difference(singly, together) <= CLOSE


def test_switches(options: StyleIDOptions, model: Any) -> None:
    def changes(**values: Any) -> int:
        name = "-".join(values)
        return abs(only(one(options, output_path=f"{options.output_path}/{name}", **values), model) - plain).max()

    plain = only(one(options), model)
    for values in (
        {"without_init_adain": True}, {"without_attn_injection": True}, {"gamma_schedule": "1,0"}, {"start_step": 2},
        {"detail": 0.3}, {"keep_color": True}, {"pi": 0.5}, {"mix": "competition"}, {"ddim_eta": 1.0},
        {"sharpen": True, "mix": "competition"},
    ):  # fmt: skip
        assert changes(**values) > 2, values
    assert changes(gamma_schedule="0.75,0.75,0.75") <= 1
    assert changes(seed=5) == 0  # nothing is drawn
    noisy = [only(one(options, ddim_eta=1.0, seed=s, output_path=f"{options.output_path}/e{s}"), model) for s in (1, 2)]
    assert abs(noisy[0] - noisy[1]).max() > 2


def test_what_is_flat_in_a_content_is_smooth_in_its_result(options: StyleIDOptions, model: Any) -> None:
    """In its own colours, or in the content's, which are given afterwards; grain stays as it is made."""

    def with_(share: float, **values: Any) -> np.ndarray:
        name = f"{options.output_path}/{len(list(Path(options.output_path).parent.iterdir()))}"
        return only(one(options, keep_flat=share, output_path=name, **values), model)

    place = Path(str(options.cnt)) / "a.png"
    Image.new("RGB", (32, 32), (90, 120, 200)).save(place)
    rough, half, smooth, blue = with_(0.0), with_(0.5), with_(1.0), with_(1.0, keep_color=True)
    assert smooth.std((0, 1)).max() < 0.4 * rough.std((0, 1)).max()
    assert abs(smooth.mean((0, 1)) - rough.mean((0, 1))).max() < 6
    assert abs(half - (rough + smooth) / 2).max() <= 1
    assert blue.std((0, 1)).max() < 0.4 * rough.std((0, 1)).max()
    assert blue.mean((0, 1))[2] > smooth.mean((0, 1))[2] + 10

    Image.effect_noise((32, 32), 60).convert("RGB").save(place)
    assert abs(with_(1.0) - with_(0.0)).max() <= 1


def test_one_full_mask_with_pi_1_is_styleid(options: StyleIDOptions, model: Any) -> None:
    plain = only(one(options), model)
    np.save(Path(str(options.cnt)) / "a_mask.npy", np.ones((32, 32), bool))
    full = one(options, pi=1.0, gamma=0.75, T=1.5, detail=0.0, output_path=f"{options.output_path}/full")
    assert abs(only(full, model) - plain).max() <= CLOSE
    without = replace(full, masks=["none"], pi=None, output_path=f"{options.output_path}/none")
    assert abs(only(without, model) - plain).max() == 0


def test_masks_of_two_styles(options: StyleIDOptions, model: Any) -> None:
    left = np.zeros((32, 32), np.float32)
    left[:, :16] = 1
    for number, mask in enumerate((left, 1 - left)):
        np.save(Path(str(options.cnt)) / f"a_mask{number}.npy", mask)
    content = replace(options, cnt=f"{options.cnt}/a.png")
    found = made(content, model)
    assert list(found) == ["a_stylized_s+t"]
    about = json.loads((Path(options.output_path) / "a_stylized_s+t.json").read_text())
    assert len(about["masks"]) == 2 and about["parameters"]["mixed"] and about["parameters"]["gamma"] == 0.2
    assert about["parameters"]["detail"] == 0.3 and about["parameters"]["pi"] == 0.9
    swapped = [f"{options.cnt}/a_mask1.npy", f"{options.cnt}/a_mask0.npy"]
    other = made(replace(content, masks=swapped, output_path=f"{options.output_path}/swapped"), model)
    assert difference(found, other) > 8
    with pytest.raises(UserError, match="more masks than styles"):
        styleid(one(options), model)


def test_sizes(options: StyleIDOptions, model: Any) -> None:
    picture(Path(str(options.cnt)) / "a.png", 0, (21, 47))
    assert only(one(options), model).shape == (20, 48, 3)
    assert only(one(options, longest=24), model).shape == (12, 24, 3)
    assert only(one(options, H=16, W=24), model).shape == (16, 24, 3)
    assert only(one(options, H=16), model).shape == (16, 16, 3)
    assert only(one(options, crop=True, longest=24), model).shape == (24, 24, 3)
    with pytest.raises(UserError, match=r"height \(H\) 18 is not a multiple of 4"):
        styleid(one(options, H=18, W=16), model)
    exif = Image.Exif()
    exif[0x0112] = 6  # a camera held upright
    Image.open(picture(Path(str(options.cnt)) / "x.png", 1, (16, 48))).save(Path(str(options.cnt)) / "a.png", exif=exif)
    assert only(one(options), model).shape == (48, 16, 3)


def test_a_mask_has_the_size_of_its_content_before_or_after_the_crop(options: StyleIDOptions, model: Any) -> None:
    picture(Path(str(options.cnt)) / "a.png", 0, (32, 64))
    wide = np.zeros((32, 64), np.float32)
    wide[:, :32] = 1
    square = np.zeros((16, 16), np.float32)
    square[:, :8] = 1
    found = []
    for number, mask in enumerate((wide, square)):
        np.save(Path(options.output_path).parent / "m.npy", mask)
        here = one(options, masks=[str(Path(options.output_path).parent / "m.npy")], H=16, W=16)
        found.append(only(replace(here, output_path=f"{options.output_path}/{number}"), model))
    assert abs(found[0] - found[1]).max() == 0


def test_pictures_of_other_sizes_are_made_one_by_one(options: StyleIDOptions, model: Any) -> None:
    picture(Path(str(options.cnt)) / "b.png", 1, (16, 32))
    found = made(replace(options, batch=4), model)
    assert {name: image.shape for name, image in found.items()}["b_stylized_t"] == (16, 32, 3)


def test_a_bad_picture_among_good_ones(options: StyleIDOptions, model: Any) -> None:
    (Path(str(options.cnt)) / "a.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"^cannot read the image '.*a\.png': not a picture in a known format$"):
        styleid(options, model)
    assert sorted(path.name for path in Path(options.output_path).glob("*.png")) == [
        "b_stylized_s.png", "b_stylized_t.png", "contact_sheet.png",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gamma": 1.5}, "gamma, .* between 0 and 1, got 1.5"),
        ({"gamma": float("nan")}, "gamma, .* between 0 and 1, got nan"),
        ({"gamma_schedule": "0.5,2"}, "gamma, .* got 2"),
        ({"gamma_schedule": "high"}, "--gamma_schedule takes numbers"),
        ({"T": 0.0}, "T, .* above 0, got 0"),
        ({"T": -1.0}, "T, .* above 0"),
        ({"attn_layer": "6,7"}, "no self-attention matches 'output_blocks.6'"),
        ({"attn_layer": "late"}, "--attn_layer takes numbers"),
        ({"pi": 1.1}, "--pi"),
        ({"detail": -1.0}, "--detail"),
        ({"mix": "both"}, "--mix"),
        ({"features": "cloud"}, "--features"),
        ({"features": "disk", "precomputed": ""}, "needs a folder"),
        ({"batch": 0}, "--batch must be at least 1"),
        ({"ddim_eta": -1.0}, "--ddim_eta"),
        ({"start_step": -1}, "--start_step"),
        ({"save_feat_steps": 10}, "--save_feat_steps 10 does not fit --ddim_inv_steps 5"),
        ({"ddim_inv_steps": 0}, "--ddim_inv_steps must be at least 1"),
        ({"longest": 0}, "--longest must be"),
        ({"longest": 2}, "longest side of 2 pixels is too small"),
        ({"cnt": None}, "--cnt and --sty belong together"),
        ({"cnt": "nowhere"}, "no content 'nowhere'"),
        ({"masks": ["nowhere.npy"]}, "no mask file 'nowhere.npy'"),
    ],
)
def test_bad_options_are_one_sentence(
    options: StyleIDOptions, model: Any, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        styleid(replace(options, **values), model)
    assert "\n" not in str(error.value)
    assert not Path(options.output_path).exists()


def test_a_fingerprint_sees_any_weight(model: Any) -> None:
    before = record.fingerprint(model)
    weight = model.first_stage_model.decoder.conv_out.bias
    with torch.no_grad():
        weight[0] += 1e-3
        changed = record.fingerprint(model)
        weight[0] -= 1e-3
    assert before != changed


def test_every_step_and_every_result_is_told(options: StyleIDOptions, model: Any) -> None:
    steps: list[tuple[str, int, int]] = []
    told: list[Result] = []
    results = styleid(
        one(options), model, Watch(on_step=lambda s: steps.append((s.task, s.number, s.total)), on_result=told.append)
    )
    inversion = [("inversion", number + 1, STEPS) for number in range(STEPS)]
    assert steps == [*inversion, *inversion, *(("sampling", number + 1, STEPS - 1) for number in range(STEPS - 1))]
    assert told == results and results[0].path.is_file()
    assert styleid(one(options), model, Watch(on_result=told.append)) != told  # what was there is not told again
    assert len(told) == 1


def test_a_run_can_be_ended_and_goes_on_later(options: StyleIDOptions, model: Any) -> None:
    told: list[Result] = []
    ended = styleid(options, model, Watch(on_result=told.append, cancelled=lambda: len(told) == 2))
    assert ended == told and [result.path.name for result in ended] == ["a_stylized_s.png", "b_stylized_s.png"]
    assert sorted(path.suffix for path in Path(options.output_path).iterdir()) == [".json", ".json", *[".png"] * 3]
    assert [result.skipped for result in styleid(options, model)] == [True, True, False, False]


def test_a_studio_gives_what_its_model_gives(options: StyleIDOptions, model: Any) -> None:
    plain = only(one(options), model)
    studio = Studio.of(model, "full")
    assert abs(only(one(options, output_path=f"{options.output_path}/studio"), studio) - plain).max() == 0


def test_a_broken_weight_is_one_sentence_and_nothing_is_kept(options: StyleIDOptions, tmp_path: Path) -> None:
    model = open_model(write_small_model(tmp_path / "broken"), device="cpu")[0]
    model.model.diffusion_model.out[-1].weight.data.view(-1)[3] = float("nan")
    message = r"^the weights are damaged: 'model\.diffusion_model\.out\.2\.weight' holds a value that is not finite"
    with pytest.raises(UserError, match=message):
        styleid(options, model)
    assert not Path(options.output_path).exists() and not Path(options.precomputed).exists()


def test_a_drawn_seed_is_said(options: StyleIDOptions, model: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    styleid(one(options, ddim_eta=1.0, seed=-1), model)
    (seed,) = re.findall(r"the seed is (\d+)", caplog.text)
    about = json.loads((Path(options.output_path) / "a_stylized_s.json").read_text())
    assert about["parameters"]["seed"] == int(seed)
    with pytest.raises(UserError, match="a seed must lie between 0 and"):
        styleid(one(options, ddim_eta=1.0, seed=2**64), model)

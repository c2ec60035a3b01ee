"""Restyling as a function, on a small model with random weights."""

from __future__ import annotations

import errno
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
from safetensors.torch import load_file, save_file

from ldm.checkpoint import read_metadata
from ldm.pictures.images import image_to_tensor, load_image, tensor_to_image
from ldm.util import UserError
from ldm.workflows import record
from ldm.workflows.inversion import cache as inversion_cache
from ldm.workflows.inversion.cache import clean_latent
from ldm.workflows.inversion.invert import invert_with_features
from ldm.workflows.models import open_model
from ldm.workflows.restyle import styleid as workflow
from ldm.workflows.restyle.layers import changed_layers
from ldm.workflows.restyle.plan import StyleIDOptions
from ldm.workflows.restyle.recipe import Recipe
from ldm.workflows.restyle.results import Result
from ldm.workflows.restyle.styleid import styleid
from ldm.workflows.restyle.stylise import start_noise, stylise
from ldm.workflows.studio import Studio
from ldm.workflows.watch import Watch
from tests.workflows.small_model import write_small_model

STEPS = 5
CLOSE = 2  # levels of 255


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return open_model(write_small_model(tmp_path_factory.mktemp("small")), device="cpu")[0]


def picture(path: Path, seed: int, size: tuple[int, int] = (32, 32)) -> Path:
    """A smooth colourful picture of (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size[::-1], Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture
def options(tmp_path: Path) -> StyleIDOptions:
    """Two contents and two styles of one size, in few steps."""
    for i, name in enumerate(("cnt/a.png", "cnt/b.png", "sty/s.png", "sty/t.png")):
        picture(tmp_path / name, i)
    return StyleIDOptions(
        cnt=str(tmp_path / "cnt"), sty=str(tmp_path / "sty"), output_path=str(tmp_path / "out"),
        precomputed=str(tmp_path / "cache"), ddim_inv_steps=STEPS, save_feat_steps=STEPS, precision="full",
        progress=False,
    )  # fmt: skip


def one(options: StyleIDOptions, **changes: Any) -> StyleIDOptions:
    """Only the first pair."""
    return replace(options, cnt=f"{options.cnt}/a.png", sty=f"{options.sty}/s.png", **changes)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path), dtype=int)


def made(options: StyleIDOptions, model: Any) -> dict[str, np.ndarray]:
    return {result.path.stem: pixels(result.path) for result in styleid(options, model)}


def only(options: StyleIDOptions, model: Any) -> np.ndarray:
    (value,) = made(options, model).values()
    return value


def difference(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> int:
    assert a.keys() == b.keys()
    return max(abs(a[name] - b[name]).max() for name in a)


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


@pytest.mark.parametrize("masked", [False, True])
def test_the_three_ways_to_keep_features_give_the_same(options: StyleIDOptions, model: Any, masked: bool) -> None:
    if masked:
        half = np.zeros((32, 32), np.float32)
        half[:, :16] = 1
        np.save(Path(str(options.cnt)) / "a_mask.npy", half)
    picture(Path(str(options.sty)) / "t.png", 3, (16, 48))  # a style of another size
    found = {}
    for features in ("memory", "disk", "replay"):
        found[features] = made(
            replace(options, features=features, output_path=f"{options.output_path}/{features}", feature_gb=0), model
        )
    assert difference(found["memory"], found["disk"]) <= 1
    assert difference(found["memory"], found["replay"]) <= CLOSE
    again = replace(options, features="disk", output_path=f"{options.output_path}/again")
    assert difference(found["disk"], made(again, model)) == 0  # now from the files


def test_half_precision_features_stay_close(options: StyleIDOptions, model: Any) -> None:
    exact = made(options, model)
    half = made(replace(options, precision="autocast", output_path=f"{options.output_path}/half"), model)
    assert 0 <= difference(exact, half) <= CLOSE


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


def test_each_picture_is_inverted_once(options: StyleIDOptions, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    count: list[int] = []
    plain = inversion_cache.invert_with_features

    def counting(model: Any, latents: torch.Tensor, *rest: Any, **more: Any) -> Any:
        count.append(len(latents))
        return plain(model, latents, *rest, **more)

    monkeypatch.setattr(inversion_cache, "invert_with_features", counting)
    styleid(replace(options, feature_gb=0), model)
    assert sum(count) == 4
    styleid(replace(options, gamma=0.3), model)
    assert sum(count) == 4  # other parameters of sampling, the same inversions
    styleid(replace(options, gamma=0.3, precomputed="", output_path=f"{options.output_path}/2", batch=2), model)
    assert count[4:] == [2, 1, 1]


def test_features_go_before_decoding_when_no_later_pair_needs_them(
    options: StyleIDOptions, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches, kept, make, decode = [], [], workflow.make_cache, type(model).decode_first_stage

    def remembered(*args: Any) -> Any:
        caches.append(make(*args))
        return caches[-1]

    def decoded(self: Any, latents: torch.Tensor) -> torch.Tensor:
        kept.append(len(caches[0]._stores))
        return decode(self, latents)

    monkeypatch.setattr(workflow, "make_cache", remembered)
    monkeypatch.setattr(type(model), "decode_first_stage", decoded)
    styleid(options, model)
    assert len(kept) > 1 and kept[0] > 0 and kept[-1] == 0
    assert caches[0].most > 0


def test_a_run_goes_on_where_it_stopped(
    options: StyleIDOptions, model: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    plain, calls = workflow.restyle, []

    def interrupted(studio: Any, cache: Any, group: Any, **more: Any) -> Any:
        calls.append(group[0].pair.name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(studio, cache, group, **more)

    monkeypatch.setattr(workflow, "restyle", interrupted)
    with pytest.raises(KeyboardInterrupt):
        styleid(options, model)
    results = styleid(options, model)
    assert [result.skipped for result in results] == [True, True, False, False]
    assert calls[3:] == ["a_stylized_t", "b_stylized_t"]
    assert "skipped, because finished: 2 of 4 (a_stylized_s, b_stylized_s)" in caplog.text
    assert all(result.skipped for result in styleid(replace(options, features="replay", batch=2), model))

    picture(Path(str(options.sty)) / "t.png", 9)  # another picture under the old name
    assert [result.skipped for result in styleid(options, model)] == [True, True, False, False]
    assert not any(result.skipped for result in styleid(replace(options, T=1.4), model))
    (Path(options.output_path) / "a_stylized_s.json").write_text("{")
    assert [result.skipped for result in styleid(replace(options, T=1.4), model)] == [False, True, True, True]


def test_a_cache_that_does_not_fit_is_made_again_and_that_is_said(
    options: StyleIDOptions, model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    alone = one(options)
    styleid(alone, model)
    files = sorted(Path(options.precomputed).iterdir())
    assert len(files) == 2 and all(file.name.endswith("_latents.safetensors") for file in files)

    caplog.clear()
    styleid(replace(alone, ddim_inv_steps=2 * STEPS), model)
    assert caplog.text.count(f"was made with steps {STEPS}, not {2 * STEPS}; inverted again") == 2

    files[0].write_bytes(files[0].read_bytes()[:-100])
    caplog.clear()
    styleid(replace(alone, ddim_inv_steps=2 * STEPS, gamma=0.5), model)
    assert caplog.text.count("the cache cannot be used") == caplog.text.count("inverted again") == 1

    other = open_model(write_small_model(Path(options.precomputed).parent / "other"), device="cpu")[0]
    with torch.no_grad():
        other.model.diffusion_model.out[-1].bias += 0.1
    caplog.clear()
    styleid(replace(alone, ddim_inv_steps=2 * STEPS), other)
    assert caplog.text.count("was made with model") == caplog.text.count("inverted again") == 2


def test_truncated_features_on_the_disk(options: StyleIDOptions, model: Any, caplog: pytest.LogCaptureFixture) -> None:
    alone = one(options, features="disk")
    first = only(alone, model)
    for file in Path(options.precomputed).glob("*_features.safetensors"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    second = only(replace(alone, output_path=f"{options.output_path}/2"), model)
    assert abs(first - second).max() <= 1
    assert caplog.text.count("computed again") == 2
    only(replace(alone, attn_layer="0,1", output_path=f"{options.output_path}/3"), model)
    assert caplog.text.count("lacks features of some layers") == 2


def test_a_cache_of_an_earlier_version_is_read(
    options: StyleIDOptions, model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Its files name timesteps and say nothing of the indices of levels."""
    alone = one(options, features="disk")
    first = only(alone, model)
    files = sorted(Path(options.precomputed).iterdir())
    assert len(files) == 4
    for file in files:
        metadata = read_metadata(file)
        assert json.loads(metadata.pop("levels"))["1"] == STEPS - 1  # the last level of the walk
        save_file(load_file(file), file, metadata)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        second = only(replace(alone, output_path=f"{options.output_path}/2"), model)
    assert "0 pictures inverted, 2 inversions read" in caplog.text and "again" not in caplog.text
    assert np.array_equal(first, second)
    fewer = replace(alone, ddim_inv_steps=STEPS, save_feat_steps=1, start_step=1)
    assert only(replace(fewer, output_path=f"{options.output_path}/3"), model).shape == first.shape


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


def test_a_full_disk_keeps_what_is_finished(
    options: StyleIDOptions, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(image: Image.Image, path: Any, *rest: Any, **more: Any) -> None:
        if "b_stylized_t" in str(path):
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(image, path, *rest, **more)

    plain = Image.Image.save
    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(UserError, match=r"cannot write '.*b_stylized_t\.png': No space left on device"):
        styleid(options, model)
    out = Path(options.output_path)
    assert len(list(out.glob("*.json"))) == 3 and not (out / "b_stylized_t.png").exists()
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    monkeypatch.undo()
    assert [result.skipped for result in styleid(options, model)] == [True, True, True, False]


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

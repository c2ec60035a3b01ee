"""Restyling: what is kept of a run, in memory and on the disk, and going on with it."""

from __future__ import annotations

import errno
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from ldm.checkpoint import read_metadata
from ldm.pictures.sizing import look_at, sizing_for
from ldm.shipped import SAMPLES
from ldm.util import UserError
from ldm.workflows.inversion import cache as inversion_cache
from ldm.workflows.inversion.cache import clean_latent
from ldm.workflows.models import open_model
from ldm.workflows.restyle import styleid as workflow
from ldm.workflows.restyle.plan import StyleIDOptions
from ldm.workflows.restyle.results import Result
from ldm.workflows.restyle.styleid import styleid
from ldm.workflows.watch import Watch
from tests.workflows.restyling import CLOSE, STEPS, difference, made, one, only, picture
from tests.workflows.small_model import write_small_model


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


def test_folders_that_are_deleted_meanwhile_are_one_sentence(options: StyleIDOptions, model: Any) -> None:
    def delete_results(result: Result) -> None:
        shutil.rmtree(options.output_path, ignore_errors=True)

    with pytest.raises(UserError, match=r"files that were written into '.*' are not there any more"):
        styleid(replace(options, no_sheet=True), model, Watch(on_result=delete_results))

    def delete_contents(result: Result) -> None:
        shutil.rmtree(str(options.cnt), ignore_errors=True)

    with pytest.raises(UserError, match=r"a\.png|b\.png"):
        styleid(replace(options, precomputed=""), model, Watch(on_result=delete_contents))


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
    (Path(options.output_path) / "a_stylized_s-2.json").write_text("{")
    (Path(options.output_path) / "b_stylized_s-2.png").unlink()
    assert [result.skipped for result in styleid(replace(options, T=1.4), model)] == [False, False, True, True]


def test_results_of_other_parameters_and_their_sheet_stay(
    options: StyleIDOptions, model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    out, alone = Path(options.output_path), one(options)
    styleid(alone, model)
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    assert set(first) == {"a_stylized_s.png", "a_stylized_s.json", "contact_sheet.png"}
    with caplog.at_level(logging.INFO):
        (second,) = styleid(replace(alone, gamma=0.3), model)
    assert second.path == out / "a_stylized_s-2.png" and "a_stylized_s.png is of other parameters" in caplog.text
    assert {name: (out / name).read_bytes() for name in first} == first
    assert {path.name for path in out.iterdir()} - set(first) == {
        "a_stylized_s-2.png", "a_stylized_s-2.json", "contact_sheet-2.png",
    }  # fmt: skip
    for again, path in ((alone, "a_stylized_s.png"), (replace(alone, gamma=0.3), "a_stylized_s-2.png")):
        (result,) = styleid(again, model)
        assert result.skipped and result.path == out / path
    assert len(list(out.iterdir())) == 6


def test_a_picture_of_somebody_else_stays(options: StyleIDOptions, model: Any) -> None:
    foreign = picture(Path(options.output_path) / "a_stylized_s.png", 7)
    before = foreign.read_bytes()
    (result,) = styleid(one(options, no_sheet=True), model)
    assert result.path.name == "a_stylized_s-2.png" and foreign.read_bytes() == before


def test_masks_beside_a_content_are_said_with_what_they_change(
    options: StyleIDOptions, model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    half = np.zeros((32, 32), np.float32)
    half[:, :16] = 1
    np.save(f"{options.cnt}/a_mask.npy", half)
    with caplog.at_level(logging.INFO):
        masked = only(one(options, no_sheet=True, detail=0.0), model)
    said = "using the masks that lie beside a.png (a_mask.npy), and with masks gamma is 0.2, T is 2; --no_masks"
    assert said in caplog.text
    caplog.clear()
    plain = only(one(options, no_sheet=True, masks=["none"]), model)
    assert "masks" not in caplog.text and not np.array_equal(plain, masked)


def test_masks_of_an_earlier_number_are_named(options: StyleIDOptions, model: Any) -> None:
    for name in ("a_mask.npy", "a_mask0.npy"):
        np.save(f"{options.cnt}/{name}", np.ones((32, 32), np.float32))
    with pytest.raises(UserError, match=r"2 mask\(s\) \(a_mask\.npy, a_mask0\.npy\) for 1 style\(s\); remove"):
        styleid(one(options), model)
    assert not Path(options.output_path).exists()


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
    assert "inverted: 0, read from inversions that were kept: 2" in caplog.text and "again" not in caplog.text
    assert np.array_equal(first, second)
    fewer = replace(alone, ddim_inv_steps=STEPS, save_feat_steps=1, start_step=1)
    assert only(replace(fewer, output_path=f"{options.output_path}/3"), model).shape == first.shape


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


def test_another_inversion_is_another_picture_and_another_file(options: StyleIDOptions, model: Any) -> None:
    common = one(options, no_sheet=True, precomputed=f"{options.output_path}/kept")
    plain = only(common, model)
    refined = replace(common, inversion="fixed_point", output_path=f"{options.output_path}/fixed")
    assert abs(only(refined, model) - plain).max() > 2
    (result,) = Path(refined.output_path).glob("*.json")
    assert json.loads(result.read_text())["parameters"]["inversion"] == "fixed_point"
    (result,) = Path(common.output_path).glob("*.json")
    assert "inversion" not in json.loads(result.read_text())["parameters"]
    again = replace(common, output_path=f"{options.output_path}/again")  # files of both are in the cache
    assert np.array_equal(only(again, model), plain)


def test_a_refined_inversion_comes_back(tmp_path: Path) -> None:
    """Without AdaIN and injection a restyling is inversion and sampling, so that the autoencoder's picture is best."""
    model, _ = open_model(device="cpu")
    plain = StyleIDOptions(
        cnt=str(SAMPLES / "cnt" / "cat.jpg"), sty=str(SAMPLES / "sty" / "shapes.jpg"), longest=64, precomputed="",
        ddim_inv_steps=10, save_feat_steps=10, without_init_adain=True, without_attn_injection=True,
        no_sheet=True, progress=False,
    )  # fmt: skip
    with torch.no_grad():
        content = look_at(Path(str(plain.cnt)), sizing_for(model, None, None, False, 64)).tensor()
        best = (model.decode_first_stage(clean_latent(model, content))[0].clamp(-1, 1) + 1) * 127.5
    error = {}
    for name in ("ddim", "fixed_point"):
        found = only(replace(plain, inversion=name, output_path=str(tmp_path / name)), model)
        error[name] = abs(found - best.permute(1, 2, 0).numpy()).mean()
    assert error["fixed_point"] < error["ddim"] / 3, error

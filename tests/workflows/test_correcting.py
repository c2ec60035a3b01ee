"""A model's corrector: for which weights and pictures it is used, and that files say so."""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tqdm import tqdm

from ldm.building.inference import inference_defaults
from ldm.checkpoint import EmbeddingFile, save_state_dict, write_embedding
from ldm.models.diffusion.guidance import expand_condition
from ldm.models.diffusion.loop import estimator
from ldm.models.diffusion.sampling import step_rule
from ldm.models.diffusion.settling import corrected, settling_levels
from ldm.modules.corrector import PATCH, Corrector, holding, seen_in_patches
from ldm.modules.retoucher import Retoucher
from ldm.pictures.images import read_parameters
from ldm.util import ConfigError, UserError
from ldm.workflows.correcting import correction_for, decoder_of, marks_of, save_for
from ldm.workflows.models import open_model
from ldm.workflows.request import Txt2ImgOptions
from ldm.workflows.studio import Studio
from ldm.workflows.txt2img import txt2img
from tests.additions.lora.files import write_lora
from tests.workflows.small_model import write_small_model


@pytest.fixture
def options(tmp_path: Path) -> Txt2ImgOptions:
    return Txt2ImgOptions(
        prompt="a red circle", n_samples=2, steps=5, seed=7, settle=2, skip_grid=True, progress=False,
        outdir=str(tmp_path / "out"), height=32, width=32,
    )  # fmt: skip


def corrector_of(network: Any, path: Path) -> Path:
    """A file of one that moves everything by 0.25."""
    x, context = torch.zeros(1, 4, 8, 8), torch.zeros(1, 8, 16)
    with torch.no_grad(), holding(network) as held:
        network(x, torch.tensor([1]), context)
        inputs = seen_in_patches(x, x, held).shape[-1]
    corrector = Corrector(inputs, channels=4, width=8)
    torch.nn.init.constant_(corrector.last.bias, 0.25)
    save_for(network, corrector, path)
    return path


@pytest.fixture
def studio(model: Any, tmp_path: Path) -> Studio:
    path = corrector_of(model.model.diffusion_model, tmp_path / "corrector.safetensors")
    return Studio(model, "small", {**model.origin.inference, "corrector": str(path)})


def pixels(images: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(image, dtype=int) for image in images])


def test_settled_pictures_are_corrected_at_any_batch_size_and_say_so(studio: Studio, options: Txt2ImgOptions) -> None:
    both = pixels(txt2img(options, studio))
    about = [read_parameters(path) for path in sorted((Path(options.outdir) / "samples").glob("*.png"))]
    said = [(one.get("corrected"), one.get("retouched")) for one in about if isinstance(one, dict)]
    assert said == [(True, None), (True, None)]
    alone = pixels(txt2img(replace(options, n_samples=1, seed=8, skip_save=True), studio))
    assert abs(alone[0] - both[1]).max() <= 1
    plain = pixels(txt2img(replace(options, skip_save=True), studio.model))
    assert abs(plain - both).max() > 1
    unsettled = replace(options, settle=0, skip_save=True)
    assert np.array_equal(pixels(txt2img(unsettled, studio)), pixels(txt2img(unsettled, studio.model)))


def test_it_is_the_mean_of_what_is_expected_late_without_what_is_wrong(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, correction = studio.model, correction_for(studio)
    late = settling_levels(step_rule("ddim").levels(model.schedule, 25))[1]
    cond = model.condition(["a red circle"], size=(8, 8))
    x0, noises = torch.randn(2, 4, 8, 8), [torch.randn(2, 4, 8, 8) for _ in range(3)]
    denoise = estimator(model, expand_condition(cond, 2))
    with torch.no_grad():
        wanted = torch.stack([denoise(late.noised(x0, noise), late).x0 for noise in noises]).mean(0) - 0.25
    told: list[list[int]] = []
    predict = model.predict
    monkeypatch.setattr(model, "predict", lambda x, t, c: told.append(t.tolist()) or predict(x, t, c))  # type: ignore[func-returns-value]
    assert correction is not None
    left = iter(noises)
    found = corrected(model, correction.corrector, x0, cond, late, lambda: next(left), times=3)
    assert torch.allclose(found, wanted, atol=1e-5) and told == [[241, 241]] * 3


def test_it_is_asked_in_place_of_the_last_level(
    studio: Studio, options: Txt2ImgOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture that it leaves alone is one that has settled at the level before."""
    asked: list[tuple[float, int]] = []
    monkeypatch.setattr(
        "ldm.workflows.generate.corrected",
        lambda model, corrector, x0, cond, level, draw, times: asked.append((level.told, times)) or x0,  # type: ignore[func-returns-value]
    )
    same = pixels(txt2img(replace(options, skip_save=True, steps=25), studio))
    assert asked == [(241, 2)]
    monkeypatch.setattr("ldm.workflows.generate.settling_levels", lambda levels: settling_levels(levels)[:1])
    assert np.array_equal(same, pixels(txt2img(replace(options, skip_save=True, steps=25), studio.model)))


@pytest.mark.parametrize("guide", [{"boxes": "circle: 0 0 .5 .5"}, {"edit": "a blue circle"}])
def test_what_does_not_settle_is_not_corrected(studio: Studio, options: Txt2ImgOptions, guide: dict[str, Any]) -> None:
    asked = replace(options, **guide)
    assert np.array_equal(pixels(txt2img(asked, studio)), pixels(txt2img(asked, studio.model)))
    paths = sorted((Path(options.outdir) / "samples").glob("*.png"))
    assert all("corrected" not in (read_parameters(path) or {}) for path in paths)


def test_pictures_that_are_not_made_of_whole_patches_settle_as_without_it(
    studio: Studio, options: Txt2ImgOptions
) -> None:
    odd = replace(options, height=options.height + studio.model.first_stage_model.factor, skip_save=True)
    assert np.array_equal(pixels(txt2img(odd, studio)), pixels(txt2img(odd, studio.model)))


def test_it_knows_nothing_of_weights_with_a_lora_and_others_of_the_request_are_as_alone(
    studio: Studio, options: Txt2ImgOptions, tmp_path: Path
) -> None:
    write_lora(tmp_path / "loras" / "one.safetensors", studio.model, 1)
    alone = replace(options, n_samples=1, lora_dir=str(tmp_path / "loras"), skip_save=True)
    called = replace(alone, prompt="a red circle <lora:one:0.5>")
    assert np.array_equal(pixels(txt2img(called, studio)), pixels(txt2img(called, studio.model)))
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle <lora:one:0.5>\na blue circle\n")
    both = pixels(txt2img(replace(alone, from_file=str(prompts), skip_save=False), studio))
    second = pixels(txt2img(replace(alone, prompt="a blue circle", seed=options.seed + 1), studio))
    assert abs(both[1] - second[0]).max() <= 1
    paths = sorted((Path(options.outdir) / "samples").glob("*.png"))
    assert ["corrected" in (read_parameters(path) or {}) for path in paths] == [False, True]


def test_words_leave_pictures_of_prompts_without_them_as_they_are(
    studio: Studio, options: Txt2ImgOptions, tmp_path: Path
) -> None:
    word = tmp_path / "word.safetensors"
    write_embedding(word, EmbeddingFile({"square": torch.randn(1, 16, generator=torch.Generator().manual_seed(3))}))
    quiet = replace(options, skip_save=True)
    assert np.array_equal(
        pixels(txt2img(replace(quiet, embedding_path=str(word)), studio)), pixels(txt2img(quiet, studio))
    )


@pytest.mark.parametrize("precision", ["full", "bf16", "fp16"])
def test_weights_are_the_same_at_every_precision_and_others_are_told_apart(
    precision: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = write_small_model(tmp_path)
    model, inference = open_model(weights, device="cpu")
    path = corrector_of(model.model.diffusion_model, tmp_path / "corrector.safetensors")
    again, _ = open_model(weights, device="cpu", precision=precision)
    found = correction_for(Studio(again, "again", {**inference, "corrector": str(path)}))
    assert found is not None and found.corrector.last.weight.dtype == torch.float32 and not found.corrector.training
    other, _ = open_model(weights, device="cpu", precision=precision)
    with torch.no_grad():
        for weight in other.model.diffusion_model.parameters():
            weight.mul_(1.1)
    assert correction_for(Studio(other, "other", {**inference, "corrector": str(path)})) is None
    assert "trained for other weights than those of 'other': it is not used" in caplog.text


def test_a_yaml_names_it_beside_itself(tmp_path: Path) -> None:
    weights = write_small_model(tmp_path)
    config = tmp_path / "config.yaml"
    config.write_text(config.read_text().replace("inference:\n", "inference:\n  corrector: put_right.safetensors\n"))
    model, inference = open_model(weights, device="cpu")
    with pytest.raises(UserError, match="put_right"):
        correction_for(Studio(model, "small", inference))
    corrector_of(model.model.diffusion_model, tmp_path / "put_right.safetensors")
    model, inference = open_model(weights, device="cpu")
    assert inference["corrector"] == str(tmp_path / "put_right.safetensors")
    assert correction_for(Studio(model, "small", inference)) is not None
    with pytest.raises(ConfigError, match=r"inference\.corrector"):
        inference_defaults({"inference": {"corrector": 3}})


def test_a_file_of_something_else_is_refused(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_state_dict({"network": marks_of(model.model.diffusion_model), "weight": torch.ones(2)}, path)
    with pytest.raises(UserError, match=r"has no corrector: configs/tiny/corrector\.yaml trains one"):
        correction_for(Studio(model, "small", {"corrector": str(path)}))


def retoucher_of(model: Any, path: Path) -> Path:
    """A file of one that makes every pixel lighter by 0.4."""
    retoucher = Retoucher(channels=4, side=PATCH * model.first_stage_model.factor, width=8)
    torch.nn.init.constant_(retoucher.last.bias, 4.0)
    save_for(decoder_of(model), retoucher, path)
    return path


def test_corrected_pictures_are_retouched_and_others_are_not(
    studio: Studio, options: Txt2ImgOptions, tmp_path: Path
) -> None:
    quiet = replace(options, skip_save=True)
    path = retoucher_of(studio.model, tmp_path / "retoucher.safetensors")
    both = Studio(studio.model, "small", {**studio.inference, "retoucher": str(path)})
    before = pixels(txt2img(quiet, studio))
    lighter = before + 51  # 0.4 of the way from -1 to 1, as far as there is room
    assert np.abs(pixels(txt2img(options, both)) - np.minimum(lighter, 255)).max() <= 1
    about = [read_parameters(path) for path in sorted((Path(options.outdir) / "samples").glob("*.png"))]
    assert [isinstance(one, dict) and one.get("retouched") for one in about] == [True, True]
    unsettled = replace(quiet, settle=0)
    assert np.array_equal(pixels(txt2img(unsettled, both)), pixels(txt2img(unsettled, studio)))
    uncorrected = Studio(studio.model, "small", {**studio.model.origin.inference, "retoucher": str(path)})
    assert np.array_equal(pixels(txt2img(quiet, uncorrected)), pixels(txt2img(quiet, studio.model)))


def test_a_retoucher_of_another_decoder_is_not_used(
    studio: Studio, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = retoucher_of(studio.model, tmp_path / "retoucher.safetensors")
    named = {**studio.inference, "retoucher": str(path)}
    weights = write_small_model(tmp_path)
    model, _ = open_model(weights, device="cpu")
    model.load_state_dict(studio.model.state_dict())
    found = correction_for(Studio(model, "same", named))
    assert found is not None and found.retoucher is not None and not found.retoucher.training
    other, _ = open_model(weights, device="cpu")
    other.load_state_dict(studio.model.state_dict())
    with torch.no_grad():
        for weight in other.first_stage_model.decoder.parameters():
            weight.mul_(1.1)
    found = correction_for(Studio(other, "other", named))
    assert found is not None and found.retoucher is None
    assert "retoucher.safetensors' was trained for other weights than those of 'other'" in caplog.text


def test_the_file_of_the_one_is_not_taken_for_the_other(studio: Studio, tmp_path: Path) -> None:
    retoucher = retoucher_of(studio.model, tmp_path / "retoucher.safetensors")
    swapped = {"corrector": studio.inference["corrector"], "retoucher": studio.inference["corrector"]}
    with pytest.raises(UserError, match=r"has no retoucher: configs/tiny/retoucher\.yaml trains one"):
        correction_for(Studio(studio.model, "small", swapped))
    with pytest.raises(UserError, match="has no corrector"):
        correction_for(Studio(studio.model, "small", {"corrector": str(retoucher)}))


@pytest.mark.parametrize("corrected_too", [True, False])
def test_progress_counts_what_settling_asks(
    studio: Studio, options: Txt2ImgOptions, corrected_too: bool, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("ldm.workflows.generate.tqdm", functools.partial(tqdm, mininterval=0))
    shown = replace(options, skip_save=True, progress=True)
    txt2img(shown, studio if corrected_too else studio.model)
    assert re.search(r"settling: 100%.* 4/4 ", capsys.readouterr().err)
    txt2img(replace(shown, progress=False), studio)
    assert "settling" not in capsys.readouterr().err


def test_files_that_do_not_fit_their_model_are_damaged(studio: Studio, tmp_path: Path) -> None:
    model, path = studio.model, tmp_path / "retoucher.safetensors"
    named = Studio(model, "small", {**studio.inference, "retoucher": str(path)})
    side = PATCH * model.first_stage_model.factor
    for wrong in (Retoucher(channels=4, side=side // 2, width=8), Retoucher(channels=3, side=side, width=8)):
        save_for(decoder_of(model), wrong, path)
        with pytest.raises(UserError, match=r"retoucher\.safetensors' is damaged: its patches are not as large as"):
            correction_for(named)
    for bias in (torch.ones(()), torch.ones(3 * 64**2)):
        save_state_dict({"first.0.weight": torch.ones(8, 832), "last.bias": bias}, path)
        with pytest.raises(UserError, match=r"has no retoucher: configs/tiny/retoucher\.yaml trains one"):
            correction_for(named)


def test_weights_that_are_not_finite_are_refused_before_anything_is_drawn(studio: Studio, tmp_path: Path) -> None:
    path = tmp_path / "retoucher.safetensors"
    retoucher = Retoucher(channels=4, side=PATCH * studio.model.first_stage_model.factor, width=8)
    torch.nn.init.constant_(retoucher.last.bias, float("nan"))
    save_for(decoder_of(studio.model), retoucher, path)
    with pytest.raises(
        UserError, match=r"retoucher\.safetensors' is damaged: 'last\.bias' holds a value that is not finite"
    ):
        correction_for(Studio(studio.model, "small", {**studio.inference, "retoucher": str(path)}))

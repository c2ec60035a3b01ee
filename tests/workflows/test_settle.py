"""Pictures that settle at the end: who asks for it, which pictures do, and which do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ldm.building.inference import inference_defaults
from ldm.models.diffusion.settling import settled
from ldm.pictures.images import read_parameters
from ldm.util import ConfigError, UserError
from ldm.workflows.img2img import Img2ImgOptions, img2img
from ldm.workflows.inpaint import InpaintOptions, inpaint
from ldm.workflows.request import Txt2ImgOptions
from ldm.workflows.studio import Studio
from ldm.workflows.txt2img import txt2img
from ldm.workflows.watch import Watch


@pytest.fixture
def options(tmp_path: Path) -> Txt2ImgOptions:
    return Txt2ImgOptions(
        prompt="a red circle", n_samples=2, steps=5, guidance_scale=3.0, seed=7, skip_grid=True, progress=False,
        outdir=str(tmp_path / "out"), height=32, width=32,
    )  # fmt: skip


def pixels(images: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(image, dtype=int) for image in images])


@pytest.mark.parametrize("sampler", ["ddim", "euler_ancestral", "dpm_solver_karras"])
def test_a_picture_is_its_seed_at_any_batch_size(model: Any, options: Txt2ImgOptions, sampler: str) -> None:
    settling = replace(options, settle=2, sampler=sampler, skip_save=True)
    both = pixels(txt2img(settling, model))
    alone = pixels(txt2img(replace(settling, n_samples=1, seed=8), model))
    assert abs(alone[0] - both[1]).max() <= 1
    assert abs(both - pixels(txt2img(replace(settling, settle=0), model))).max() > 1


def test_the_yaml_may_ask_for_it_and_a_request_otherwise(model: Any, options: Txt2ImgOptions) -> None:
    plain, three = (pixels(txt2img(replace(options, settle=times), model)) for times in (None, 3))
    studio = Studio(model, "small", {**model.origin.inference, "settle": 3})
    assert np.array_equal(pixels(txt2img(options, studio)), three)
    assert np.array_equal(pixels(txt2img(replace(options, settle=0), studio)), plain)
    about = [read_parameters(path) for path in sorted((Path(options.outdir) / "samples").glob("*.png"))]
    assert [one.get("settle") for one in about if isinstance(one, dict)] == [None] * 2 + [3] * 4 + [None] * 2
    assert inference_defaults({"inference": {"settle": 3}}) == {"settle": 3}
    with pytest.raises(ConfigError, match=r"inference\.settle"):
        inference_defaults({"inference": {"settle": "well"}})


@pytest.mark.parametrize("guide", [{"boxes": "circle: 0 0 .5 .5"}, {"excite": "circle"}, {"edit": "a blue circle"}])
def test_what_is_guided_or_edited_ends_where_its_walk_does_and_says_so(
    model: Any, options: Txt2ImgOptions, guide: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    studio = Studio(model, "small", {**model.origin.inference, "settle": 2})
    plain, usual = (pixels(txt2img(replace(options, settle=times, **guide), studio)) for times in (0, None))
    assert "--settle" not in caplog.text, "nobody asked for it"
    asked = pixels(txt2img(replace(options, settle=2, **guide), studio))
    assert np.array_equal(plain, asked) and np.array_equal(plain, usual)
    assert "--settle is for pictures of prompts alone" in caplog.text
    about = [read_parameters(path) for path in sorted((Path(options.outdir) / "samples").glob("*.png"))]
    assert len(about) == 6 and all(isinstance(one, dict) and "settle" not in one for one in about)


def test_of_two_passes_the_first_settles(model: Any, options: Txt2ImgOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    widths: list[int] = []

    def noted(denoiser: Any, x0: Tensor, *rest: Any) -> Tensor:
        widths.append(x0.shape[-1] * model.first_stage_model.factor)
        return settled(denoiser, x0, *rest)

    monkeypatch.setattr("ldm.workflows.generate.settled", noted)
    large = txt2img(replace(options, settle=2, hires=1.5, hires_strength=1.0, skip_save=True), model)
    assert widths == [32] and [image.width for image in large] == [48, 48]


def test_what_is_painted_over_does_not_settle_but_at_full_strength(model: Any, options: Txt2ImgOptions) -> None:
    given: dict[str, Any] = {
        "prompt": "a red circle", "init_img": Image.new("RGB", (32, 32), (200, 40, 90)), "n_samples": 2, "steps": 5,
        "seed": 7, "guidance_scale": 3.0, "skip_grid": True, "skip_save": True, "progress": False,
    }  # fmt: skip

    def made(strength: float, settle: int) -> np.ndarray:
        return pixels(img2img(Img2ImgOptions(**given, strength=strength, settle=settle), model))

    assert np.array_equal(made(0.6, 0), made(0.6, 2))
    assert np.array_equal(made(1.0, 2), pixels(txt2img(replace(options, settle=2), model)))
    mask = torch.zeros(32, 32)
    mask[8:24, 8:24] = 1
    plain, asked = (pixels(inpaint(InpaintOptions(**given, mask=mask, settle=one), model)) for one in (0, 2))
    assert np.array_equal(plain, asked)


def test_it_ends_where_it_is_not_wanted_any_more(
    model: Any, options: Txt2ImgOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    predict = model.predict

    def counted(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        asked.append(len(x))
        return predict(x, t, cond)

    monkeypatch.setattr(model, "predict", counted)
    assert txt2img(replace(options, settle=2, skip_save=True), model, Watch(cancelled=lambda: len(asked) > 6)) == []
    assert asked == [4] * 5 + [2] * 2, "five steps with guidance, and two of the four calls that settling asks for"


@pytest.mark.parametrize("times", [-1, 65])
def test_what_is_no_number_of_noises_is_refused(model: Any, options: Txt2ImgOptions, times: int) -> None:
    with pytest.raises(UserError, match=rf"mean over 0 .* to 64 noises, got {times}"):
        txt2img(replace(options, settle=times), model)

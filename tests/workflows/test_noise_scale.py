"""Start noise of another size: who asks for it, which pictures begin from it, and which do not."""

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
from ldm.models.diffusion.noise import ImageNoise
from ldm.models.diffusion.regional import Backdrop
from ldm.pictures.images import read_parameters
from ldm.util import ConfigError, UserError
from ldm.workflows.img2img import Img2ImgOptions, img2img
from ldm.workflows.inpaint import InpaintOptions, inpaint
from ldm.workflows.look.attention_maps import course_of_prompt
from ldm.workflows.request import Txt2ImgOptions
from ldm.workflows.studio import Studio
from ldm.workflows.txt2img import txt2img

NOISE = ImageNoise([7, 8]).draw((4, 8, 8))  # of two pictures of 32 x 32 pixels


@pytest.fixture
def options(tmp_path: Path) -> Txt2ImgOptions:
    return Txt2ImgOptions(
        prompt="a red circle", n_samples=2, steps=5, guidance_scale=3.0, seed=7, skip_grid=True, progress=False,
        outdir=str(tmp_path / "out"),
    )  # fmt: skip


@pytest.fixture
def asked(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What the network is asked about, the first first."""
    seen: list[Tensor] = []
    predict = model.predict

    def watched(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        seen.append(x.clone())
        return predict(x, t, cond)

    monkeypatch.setattr(model, "predict", watched)
    return seen


def pixels(images: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(image, dtype=int) for image in images])


@pytest.mark.parametrize("change", [{}, {"edit": "a blue circle"}, {"sampler": "euler_ancestral"}])
def test_what_begins_from_noise(
    model: Any, options: Txt2ImgOptions, asked: list[Tensor], change: dict[str, Any]
) -> None:
    txt2img(replace(options, noise_scale=0.5, **change), model)
    assert torch.equal(asked[0][:2], 0.5 * NOISE)


def test_around_a_region_that_is_started_lies_as_much_of_it(
    model: Any, options: Txt2ImgOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    monkeypatch.setattr(Backdrop, "behind", lambda self, *_: seen.append(self.noise))
    boxes: dict[str, Any] = {"boxes": "circle: 0 0 .5 .5", "layout": "regions", "layout_view": "whole"}
    txt2img(replace(options, noise_scale=0.5, layout_bootstrap=0.5, **boxes), model)
    assert torch.equal(seen[0], 0.5 * NOISE)


def test_maps_of_a_prompt_are_of_the_same_picture(model: Any, asked: list[Tensor]) -> None:
    course_of_prompt(model, "a red circle", (32, 32), steps=5, seed=7, guidance_scale=3.0, noise_scale=0.5)
    assert torch.equal(asked[0][:1], 0.5 * NOISE[:1])


def test_a_picture_with_noise_over_it_keeps_its_strength(model: Any, options: Txt2ImgOptions) -> None:
    given: dict[str, Any] = {
        "prompt": "a red circle", "init_img": Image.new("RGB", (32, 32), (200, 40, 90)), "n_samples": 2, "steps": 5,
        "seed": 7, "guidance_scale": 3.0, "skip_grid": True, "skip_save": True, "progress": False,
    }  # fmt: skip
    for strength in (0.6, 1.0):
        plain, scaled = (
            pixels(img2img(Img2ImgOptions(**given, strength=strength, noise_scale=scale), model)) for scale in (1, 0.5)
        )
        assert np.array_equal(plain, scaled) == (strength < 1)
    assert np.array_equal(scaled, pixels(txt2img(replace(options, noise_scale=0.5), model)))
    mask = torch.zeros(32, 32)
    mask[8:24, 8:24] = 1
    plain, scaled = (pixels(inpaint(InpaintOptions(**given, mask=mask, noise_scale=one), model)) for one in (1, 0.5))
    assert np.array_equal(plain, scaled)


def test_the_yaml_may_ask_for_it_and_a_request_otherwise(model: Any, options: Txt2ImgOptions) -> None:
    plain, quiet = (pixels(txt2img(replace(options, noise_scale=one), model)) for one in (None, 0.5))
    assert not np.array_equal(plain, quiet)
    studio = Studio(model, "small", {**model.origin.inference, "noise_scale": 0.5})
    assert np.array_equal(pixels(txt2img(options, studio)), quiet)
    assert np.array_equal(pixels(txt2img(replace(options, noise_scale=1.0), studio)), plain)
    about = [read_parameters(path) for path in sorted((Path(options.outdir) / "samples").glob("*.png"))]
    assert [one.get("noise_scale") for one in about if isinstance(one, dict)] == [None] * 2 + [0.5] * 4 + [None] * 2
    assert inference_defaults({"inference": {"noise_scale": 0.5}}) == {"noise_scale": 0.5}
    with pytest.raises(ConfigError, match=r"inference\.noise_scale"):
        inference_defaults({"inference": {"noise_scale": "little"}})


def test_a_picture_is_its_seed_at_any_batch_size(model: Any, options: Txt2ImgOptions) -> None:
    quiet = replace(options, noise_scale=0.5, skip_save=True)
    both = pixels(txt2img(quiet, model))
    alone = pixels(txt2img(replace(quiet, n_samples=1, seed=8), model))
    assert abs(alone[0] - both[1]).max() <= 1


@pytest.mark.parametrize("scale", [-0.1, 2.5, float("nan"), float("inf")])
def test_what_is_no_scale_is_refused(model: Any, options: Txt2ImgOptions, scale: float) -> None:
    with pytest.raises(UserError, match="scale of the start noise"):
        txt2img(replace(options, noise_scale=scale), model)

"""Boxes as regions together with LoRAs, a second pass at twice the size, and prompts in other languages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.pictures.images import read_parameters
from ldm.workflows.request import Txt2ImgOptions
from ldm.workflows.studio import open_studio
from ldm.workflows.txt2img import txt2img
from tests.additions.lora.files import write_lora


@pytest.fixture
def options(tmp_path: Path) -> Txt2ImgOptions:
    return Txt2ImgOptions(
        prompt="a red circle on a blue", boxes="red circle: 0 0 .5 .5", layout="regions", outdir=str(tmp_path / "out"),
        steps=2, n_samples=1, skip_grid=True, progress=False,
    )  # fmt: skip


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"), dtype=int)


def test_with_a_lora(options: Txt2ImgOptions, model: Any, tmp_path: Path) -> None:
    """It changes what is drawn, in the boxes and beside them, and is gone afterwards."""
    lora = write_lora(tmp_path / "lora.safetensors", model)
    (plain,) = txt2img(replace(options, skip_save=True), model)
    (changed,) = txt2img(replace(options, skip_save=True, lora=[lora]), model)
    (called,) = txt2img(
        replace(options, prompt="a red circle on a blue <lora:lora>", skip_save=True, lora_dir=str(tmp_path)), model
    )
    difference = abs(pixels(changed) - pixels(plain)).max(axis=2)
    half = difference.shape[0] // 2
    assert difference[:half, :half].max() > 0 and difference[half:, half:].max() > 0
    assert (pixels(called) == pixels(changed)).all()
    assert (pixels(txt2img(replace(options, skip_save=True), model)[0]) == pixels(plain)).all()


def test_with_a_second_pass(options: Txt2ImgOptions, model: Any) -> None:
    (plain,) = txt2img(replace(options, skip_save=True), model)
    (large,) = txt2img(replace(options, hires=2.0, hires_steps=2), model)
    assert large.size == (2 * plain.width, 2 * plain.height)
    about = read_parameters(Path(options.outdir) / "samples" / "00000.png")
    assert isinstance(about, dict) and about["boxes"] == {"red circle": "0 0 .5 .5"}
    elsewhere = replace(options, boxes="red circle: .5 .5 1 1", hires=2.0, hires_steps=2, skip_save=True)
    assert abs(pixels(txt2img(elsewhere, model)[0]) - pixels(large)).max() > 1
    assert all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())


def test_in_korean() -> None:
    """Prompt and boxes, on the shipped model."""
    asked = Txt2ImgOptions(
        prompt="흰 배경에 보라색 하트와 바나나", steps=8, n_samples=1, skip_save=True, skip_grid=True,
        boxes="보라색 하트: .5 0 1 .5; 바나나: 0 .5 .5 1", progress=False,
    )  # fmt: skip
    (image,) = txt2img(asked, open_studio(None, device="cpu", precision="full"))
    rgb = pixels(image)
    purple = (rgb[..., 1] < 110) & (rgb[..., 2] > 100)
    yellow = (rgb[..., 2] < 130) & (rgb[..., 0] > 180)
    half = rgb.shape[0] // 2
    assert purple[:half, half:].mean() > 0.3 and yellow[half:, :half].mean() > 0.12  # a banana is thin
    assert purple[half:].mean() < 0.02 and yellow[:half].mean() < 0.02

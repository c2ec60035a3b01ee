"""Pictures to pictures, on a small model with random weights and on the one that ships."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.models.diffusion.noise import ImageNoise
from ldm.models.diffusion.sampling import noised, sample
from ldm.pictures.images import image_to_tensor, read_parameters, tensor_to_image
from ldm.util import UserError
from ldm.workflows.basis import steps_of
from ldm.workflows.img2img import Img2ImgOptions, img2img
from ldm.workflows.inversion.cache import clean_latent
from ldm.workflows.models import open_model
from ldm.workflows.txt2img import Txt2ImgOptions, txt2img
from ldm.workflows.watch import Watch


@pytest.fixture
def options(tmp_path: Path) -> Img2ImgOptions:
    init = tmp_path / "init.png"
    picture(32, 32).save(init)
    return Img2ImgOptions(
        prompt="a red circle", init_img=init, n_samples=2, steps=10, guidance_scale=3.0, seed=7, skip_grid=True,
        skip_save=True, outdir=str(tmp_path / "out"), progress=False,
    )  # fmt: skip


def picture(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(1).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=int)


def test_strength_0_is_what_the_autoencoder_makes_of_the_picture(model: Any, options: Img2ImgOptions) -> None:
    z = clean_latent(model, image_to_tensor(picture(32, 32))[None])
    with torch.no_grad():
        expected = tensor_to_image(model.decode_first_stage(z)[0])
    for made in img2img(replace(options, strength=0.0), model):
        assert np.array_equal(pixels(made), pixels(expected))


@pytest.mark.parametrize("sampler", ["ddim", "euler", "dpm_solver"])
def test_strength_1_is_the_picture_that_txt2img_makes(model: Any, options: Img2ImgOptions, sampler: str) -> None:
    plain = Txt2ImgOptions(
        prompt="a red circle", n_samples=2, steps=10, guidance_scale=3.0, seed=7, skip_grid=True, skip_save=True,
        sampler=sampler, progress=False,
    )  # fmt: skip
    made = img2img(replace(options, strength=1.0, sampler=sampler), model)
    for ours, theirs in zip(made, txt2img(plain, model), strict=True):
        assert np.array_equal(pixels(ours), pixels(theirs))


def test_between_them_the_last_steps_are_taken_from_the_noised_picture(model: Any, options: Img2ImgOptions) -> None:
    (made,) = img2img(replace(options, strength=0.39, n_samples=1), model)
    z = clean_latent(model, image_to_tensor(picture(32, 32))[None])
    noise = ImageNoise([7]).draw(z.shape[1:])
    with torch.no_grad():
        condition = model.condition(["a red circle"])
        x = sample(
            model, noised(model, z, noise, steps=10, start=3), condition, steps=10, start=3, guidance_scale=3.0,
            uncond=model.unconditional(condition),
        )  # fmt: skip
        expected = tensor_to_image(model.decode_first_stage(x)[0])
    assert abs(pixels(made) - pixels(expected)).max() <= 1


@pytest.mark.parametrize(("strength", "steps"), [(0, 0), (0.01, 1), (0.29, 29), (0.7, 70), (0.755, 75), (1, 100)])
def test_steps_of_a_strength(strength: float, steps: int) -> None:
    assert steps_of(strength, 100) == steps


@pytest.mark.parametrize("strength", [-0.1, 1.5, float("nan")])
def test_a_strength_beyond_0_to_1_is_one_sentence(options: Img2ImgOptions, strength: float) -> None:
    with pytest.raises(UserError, match=r"^--strength must lie between 0 \(the picture as it is\) and 1"):
        img2img(replace(options, strength=strength))


def test_a_folder_gives_each_picture_the_same_seeds(model: Any, options: Img2ImgOptions, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    picture(32, 32).save(folder / "a.png")
    picture(48, 32).save(folder / "b.jpg")
    (folder / "broken.png").write_bytes(b"no picture")
    saving = replace(options, init_img=folder, skip_save=False, skip_grid=False)
    seen: list[tuple[int, str]] = []
    made = img2img(saving, model, Watch(on_result=lambda one: seen.append((one.seed, str(one.path and one.path.name)))))
    assert seen == [(7, "a-00000.png"), (8, "a-00001.png"), (7, "b-00000.png"), (8, "b-00001.png")]
    assert [one.size for one in made] == [(32, 32), (32, 32), (48, 32), (48, 32)]
    alone = img2img(replace(options, init_img=folder / "b.jpg"), model)
    assert np.array_equal(pixels(made[2]), pixels(alone[0]))
    about = read_parameters(tmp_path / "out" / "samples" / "b-00001.png")
    assert isinstance(about, dict) and about["init_img"].endswith("b.jpg") and about["strength"] == 0.75
    assert (about["width"], about["height"]) == (48, 32) and (tmp_path / "out" / "grid-0000.png").is_file()


def test_a_smaller_size_is_said_once_for_a_folder(
    model: Any, options: Img2ImgOptions, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, size in (("a", (128, 96)), ("b", (128, 96)), ("c", (96, 128))):
        picture(*size).save(tmp_path / f"{name}.png")
    with caplog.at_level("INFO"):
        img2img(replace(options, init_img=tmp_path, n_samples=1, strength=0.0), model)
    said = [one.getMessage()[:42] for one in caplog.records if "worked on" in one.getMessage()]
    assert said == ["the picture of 128x96 pixels is worked on ", "the picture of 96x128 pixels is worked on "]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "I;16", "LA"])
def test_init_pictures_of_every_mode(model: Any, options: Img2ImgOptions, tmp_path: Path, mode: str) -> None:
    source = picture(32, 32).convert("L").convert("I;16") if mode == "I;16" else picture(32, 32).convert(mode)
    path = tmp_path / ("init.jpg" if mode == "CMYK" else "mode.png")
    source.save(path)
    (made,) = img2img(replace(options, init_img=path, n_samples=1, steps=2), model)
    assert made.size == (32, 32)


@pytest.mark.parametrize(
    ("size", "changes", "expected"),
    [
        ((50, 33), {}, (48, 32)),
        ((50, 33), {"height": 16, "width": 24}, (24, 16)),
        ((64, 32), {"width": 32}, (32, 16)),
        ((64, 32), {"longest": 32}, (32, 16)),
        ((400, 100), {}, (64, 16)),  # over 4 times 32 x 32
    ],
)
def test_the_size_at_which_it_is_worked_on(
    model: Any, options: Img2ImgOptions, size: tuple[int, int], changes: dict[str, int], expected: tuple[int, int]
) -> None:
    given: dict[str, Any] = {"init_img": picture(*size), "n_samples": 1, "steps": 1, **changes}
    (made,) = img2img(replace(options, **given), model)
    assert made.size == expected


def test_what_does_not_fit_is_one_sentence_and_writes_nothing(
    model: Any, options: Img2ImgOptions, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no picture")
    for change, message in (
        ({"init_img": None}, "a picture to begin from is missing: --init-img FILE"),
        ({"init_img": tmp_path / "none.png"}, "there is no image file"),
        ({"init_img": tmp_path / "text.png"}, "not a picture in a known format"),
        ({"init_img": tmp_path / "empty"}, "holds no pictures"),
        ({"edit": "a blue circle"}, "begins from --edit_photo"),
        ({"height": 30}, "is not a multiple of 4"),
        ({"longest": 2}, "--longest 2 is too small"),
        ({"steps": 0}, "between 1 and 1000"),
    ):
        with pytest.raises(UserError) as caught:
            img2img(replace(options, **{"skip_save": False, **change}), model)  # type: ignore[arg-type]
        assert message in str(caught.value) and "\n" not in str(caught.value), change
        assert not (tmp_path / "out" / "samples").exists()


def test_the_shipped_model_paints_over_a_picture(caplog: pytest.LogCaptureFixture) -> None:
    shipped, _ = open_model(device="cpu")
    init = Image.new("RGB", (512, 512), (20, 30, 220))
    given = Img2ImgOptions(
        prompt="a large red circle on a blue background", init_img=init, steps=10, n_samples=1, skip_grid=True,
        skip_save=True, progress=False,
    )  # fmt: skip
    with caplog.at_level(logging.INFO):
        same, made = (pixels(img2img(replace(given, strength=strength), shipped)[0]) for strength in (0.0, 0.9))
    assert same.shape == (128, 128, 3) and "is worked on at 128x128" in caplog.text
    assert abs(same - pixels(init)[:128, :128]).mean() < 12, "the autoencoder's"
    red, _, blue = made[56:72, 56:72].mean(axis=(0, 1))
    assert red > blue + 60, "a red circle in the middle"
    red, _, blue = made[:4, :4].mean(axis=(0, 1))
    assert blue > red + 60, "on what was blue"

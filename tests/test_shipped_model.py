"""The model that ships and the commands of the README, run as a newcomer runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.pictures.images import centre_crop, image_to_tensor
from ldm.pictures.rim import thing_box
from ldm.shipped import TINY
from ldm.workflows.models import open_model
from ldm.workflows.txt2img import Txt2ImgOptions, txt2img
from ldm.world.photos import load_photo, photos
from ldm.world.scene import COLOURS
from tests import forked

BACKGROUNDS = {name: COLOURS[name] for name in ("blue", "yellow", "red", "white")}


@pytest.fixture(scope="module")
def model() -> Any:
    return open_model()[0]


def test_pictures_have_the_background_that_the_prompt_asks_for(model: Any, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(f"a small black circle on a {colour} background" for colour in BACKGROUNDS))
    options = Txt2ImgOptions(
        from_file=str(prompts), n_samples=4, n_iter=2, outdir=str(tmp_path), height=64, width=64, guidance_scale=3.0,
        steps=20, progress=False,
    )  # fmt: skip
    images = txt2img(options, model)
    assert len(images) == 8
    for number, image in enumerate(images):
        border = np.asarray(image.convert("RGB"), np.float32)[[2, -3]].reshape(-1, 3).mean(axis=0)
        distances = {name: float(np.abs(border - rgb).mean()) for name, rgb in BACKGROUNDS.items()}
        assert min(distances, key=lambda name: distances[name]) == list(BACKGROUNDS)[number % 4]


def test_the_object_in_the_middle_is_not_the_background(model: Any, tmp_path: Path) -> None:
    options = Txt2ImgOptions(
        prompt="a large plain red square on a white background", n_samples=2, outdir=str(tmp_path), steps=20,
        height=64, width=64, guidance_scale=3.0, progress=False,
    )  # fmt: skip
    for image in txt2img(options, model):
        middle = np.asarray(image.convert("RGB"), np.float32)[24:40, 24:40].mean(axis=(0, 1))
        assert middle[0] > middle[1] + 80 and middle[0] > middle[2] + 80


def test_a_photograph_is_recognisable_after_the_autoencoder(model: Any) -> None:
    cat = next(photo for photo in photos("heldout") if photo.name == "chelsea")
    x = image_to_tensor(centre_crop(load_photo(cat), 256, 256))[None]
    with torch.no_grad():
        z = model.encode_first_stage(x).mode() * model.scale_factor
        y = model.decode_first_stage(z).clamp(-1, 1)
    assert z.shape == (1, 24, 32, 32)
    assert 10 * torch.log10(4 / (y - x).square().mean()) > 32.0


def test_a_picture_does_not_depend_on_its_batch(model: Any, tmp_path: Path) -> None:
    def pictures(n_samples: int, n_iter: int) -> list[np.ndarray]:
        options = Txt2ImgOptions(
            prompt="a small red star on a blue background", n_samples=n_samples, n_iter=n_iter, steps=10, seed=7,
            height=64, width=64, guidance_scale=3.0, skip_save=True, skip_grid=True, outdir=str(tmp_path),
            progress=False,
        )  # fmt: skip
        return [np.asarray(image, np.int16) for image in txt2img(options, model)]

    together, one_by_one = pictures(3, 1), pictures(1, 3)
    for first, second in zip(together, one_by_one, strict=True):
        assert np.abs(first - second).max() <= 1  # rounding of sums in another order


def test_files_are_small_and_safe() -> None:
    files = [path for path in TINY.iterdir() if path.is_file()]
    assert not [path for path in files if path.suffix in (".ckpt", ".pt", ".bin", ".pkl")]
    assert sum(path.stat().st_size for path in files) < 40 * 2**20


@pytest.mark.slow
def test_txt2img_of_the_readme(tmp_path: Path) -> None:
    done = forked.run("txt2img.py", "--prompt", "a small red star on a blue background", "--outdir", tmp_path,
                      "--ddim_steps", "5", "--n_samples", "2")  # fmt: skip
    assert done.returncode == 0, done.stderr
    samples = sorted((tmp_path / "samples").glob("*.png"))
    assert [path.name for path in samples] == ["00000.png", "00001.png"]
    assert (tmp_path / "grid-0000.png").is_file()
    with Image.open(samples[1]) as image:
        assert image.size == (128, 128)
        parameters = json.loads(image.info["parameters"])
    assert parameters["prompt"] == "a small red star on a blue background" and parameters["seed"] == 43


@pytest.mark.slow
def test_new_words_are_learned_from_a_folder_by_the_command_of_the_readme(tmp_path: Path) -> None:
    from scripts.demo import render_sunsets

    render_sunsets(tmp_path / "pictures")
    done = forked.run("main.py", "-b", "configs/tiny/finetune.yaml", "-t", "--scale_lr", "false", "--name", "words",
                      "--data_root", tmp_path / "pictures", "--logdir", tmp_path / "logs", "--max_steps", "2",
                      "--lightning.callbacks.image_logger.params.disabled", "true")  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "logs").iterdir()
    assert (folder / "checkpoints" / "last.ckpt").is_file()

    exported = tmp_path / "model.safetensors"
    done = forked.run("-m", "scripts.export_model", folder / "checkpoints" / "last.ckpt", exported)
    assert done.returncode == 0, done.stderr
    assert exported.stat().st_size < 1.1 * (TINY / "model.safetensors").stat().st_size
    again, _ = open_model(exported, TINY / "config.yaml")
    assert again.get_learned_conditioning(["a red star"]).shape == (1, 40, 192)


@pytest.mark.slow
def test_the_balloon_of_the_demo_rises_before_a_background_that_stays(tmp_path: Path) -> None:
    from scripts.demo import show_film

    assert show_film(tmp_path).suffix == ".png"
    (gif,) = (tmp_path / "film").glob("*.gif")
    with Image.open(gif) as file:
        frames = [file.copy() for _ in map(file.seek, range(file.n_frames))]  # type: ignore[attr-defined]
    boxes = [thing_box(frame.convert("RGB")) for frame in frames]
    assert len(frames) == 8 and all(boxes)
    tops = [box[1] for box in boxes if box]
    assert tops[-1] < tops[0] - 0.08 and max(np.diff(tops)) < 0.04, "it rises, give or take the edge of a box"
    pixels = np.stack([np.asarray(frame.convert("RGB"), np.float32) for frame in frames])
    assert abs(pixels[1:, -16:] - pixels[:1, -16:]).mean() < 8, "the meadow below it"

"""Depth, up-scaling, variations and classes, on tiny random models of each kind; models of another job are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.pictures.images import image_to_tensor, read_parameters
from ldm.util import UserError
from ldm.workflows.class2img import Class2ImgOptions, class2img
from ldm.workflows.depth2img import Depth2ImgOptions, depth2img
from ldm.workflows.img2img import Img2ImgOptions, img2img
from ldm.workflows.inpaint import InpaintOptions, inpaint
from ldm.workflows.models import open_model
from ldm.workflows.superresolution import SuperresolutionOptions, superresolution
from ldm.workflows.txt2img import Txt2ImgOptions, txt2img
from ldm.workflows.variations import VariationsOptions, variations
from tests.helpers import noted
from tests.models.test_variants import randomise
from tests.workflows.test_img2img import picture, pixels
from tests.workflows.test_needs import KINDS, saved


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, model: Any) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("kinds")
    opened = {}
    for kind in KINDS:
        ckpt = saved(kind, folder / kind)
        opened[kind] = open_model(ckpt, ckpt.parent / "config.yaml", device="cpu")[0]
        randomise(opened[kind])
    return {**opened, "text": model}


def quiet(**changes: Any) -> dict[str, Any]:
    return {"n_samples": 2, "steps": 2, "guidance_scale": 2.0, "seed": 5, "skip_grid": True, "skip_save": True,
            "progress": False, **changes}  # fmt: skip


def seen_by(model: Any, make: Callable[[], Any]) -> tuple[list[dict[str, Any]], Any]:
    """What the model's condition was given, and what was made."""
    seen: list[dict[str, Any]] = []
    with pytest.MonkeyPatch.context() as patch:
        condition = model.condition
        patch.setattr(model, "condition", lambda prompts, **given: noted(seen, given) and condition(prompts, **given))
        return seen, make()


def test_depth(models: dict[str, Any]) -> None:
    init, options = picture(32, 32), Depth2ImgOptions(prompt="a red circle", init_img=picture(32, 32), **quiet())
    seen, made = seen_by(models["depth"], lambda: depth2img(options, models["depth"]))
    assert [one.size for one in made] == [(32, 32)] * 2 and torch.equal(seen[0]["image"], image_to_tensor(init)[None])
    options.strength = 1.0
    whole = depth2img(options, models["depth"])
    options.init_img = init.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    flipped = depth2img(options, models["depth"])
    assert not np.array_equal(pixels(whole[0]), pixels(flipped[0])), "its depth is another"
    assert not np.array_equal(pixels(whole[0]), pixels(made[0])), "a strength below 1 begins from the picture"


def test_what_is_given_more_than_a_prompt_does_not_settle(models: dict[str, Any]) -> None:
    plain, asked = (class2img(Class2ImgOptions(**quiet(settle=one)), models["class"]) for one in (0, 2))
    assert all(np.array_equal(pixels(one), pixels(other)) for one, other in zip(plain, asked, strict=True))


def test_up_scaling(models: dict[str, Any], tmp_path: Path) -> None:
    saving = quiet(skip_save=False, outdir=str(tmp_path))
    options = SuperresolutionOptions(init_img=picture(12, 8), noise_level=30, **saving)
    seen, made = seen_by(models["up-scaling"], lambda: superresolution(options, models["up-scaling"]))
    assert [one.size for one in made] == [(48, 32)] * 2
    assert seen[0]["low_res"].shape == (1, 3, 8, 12) and seen[0]["noise_level"] == 30
    assert seen[0]["noise"].shape == (2, 3, 8, 12), "of each picture's own generator"
    alone = superresolution(
        SuperresolutionOptions(init_img=picture(12, 8), noise_level=30, **quiet(n_samples=1, seed=6)),
        models["up-scaling"],
    )
    assert abs(pixels(alone[0]) - pixels(made[1])).max() <= 1
    about = read_parameters(tmp_path / "samples" / "00001.png")
    assert isinstance(about, dict) and about["noise_level"] == 30 and about["width"] == 48
    (cut,) = superresolution(
        SuperresolutionOptions(init_img=picture(30, 30), height=16, width=32, **quiet(n_samples=1)),
        models["up-scaling"],
    )
    assert cut.size == (32, 16)


def test_variations(models: dict[str, Any]) -> None:
    model, options = models["image embedding"], VariationsOptions(init_img=picture(40, 30), **quiet())
    seen, made = seen_by(model, lambda: variations(options, model))
    assert [one.size for one in made] == [(32, 32)] * 2
    assert torch.equal(seen[0]["image"], image_to_tensor(picture(40, 30))[None]) and "noise" not in seen[0]
    with pytest.raises(UserError, match="adds no noise to what it is shown: leave out --noise_level"):
        variations(VariationsOptions(init_img=picture(40, 30), noise_level=10, **quiet()), model)
    with pytest.raises(UserError, match="--noise_level must be 0 "):
        variations(VariationsOptions(init_img=picture(40, 30), noise_level=-1, **quiet()), model)


def test_variations_with_noise_on_the_embedding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, params, unet, needs = KINDS["image embedding"]
    noisy = {
        "target": "ldm.modules.encoders.modules.CLIPEmbeddingNoiseAugmentation",
        "params": {"timestep_dim": 8, "noise_schedule_config": {"timesteps": 1000}},
    }
    kind = (name, {**params, "noise_aug_config": noisy}, {**unet, "adm_in_channels": 16}, needs)
    monkeypatch.setitem(KINDS, "noisy embedding", kind)
    model, _ = open_model(saved("noisy embedding", tmp_path), device="cpu")
    options = VariationsOptions(init_img=picture(40, 30), noise_level=100, **quiet())
    seen, _ = seen_by(model, lambda: variations(options, model))
    assert seen[0]["noise_level"] == 100 and seen[0]["noise"].shape == (2, 8)
    options.n_samples, options.seed = 1, 6
    alone, _ = seen_by(model, lambda: variations(options, model))
    assert torch.equal(alone[0]["noise"][0], seen[0]["noise"][1]), "it belongs to the picture's seed"


def test_classes(models: dict[str, Any], tmp_path: Path) -> None:
    options = Class2ImgOptions(classes=[3, 7], **quiet(skip_save=False, outdir=str(tmp_path)))
    made = class2img(options, models["class"])
    assert [path.name for path in sorted((tmp_path / "samples").iterdir())] == [
        "0003-00000.png", "0003-00001.png", "0007-00000.png", "0007-00001.png",
    ]  # fmt: skip
    (alone,) = class2img(Class2ImgOptions(classes=[7], **quiet(n_samples=1)), models["class"])
    assert abs(pixels(alone) - pixels(made[2])).max() <= 1 and not np.array_equal(pixels(made[0]), pixels(made[2]))
    for classes, message in (([11], "knows the classes 0 to 10, got 11"), ([], "no class is named")):
        with pytest.raises(UserError, match=message):
            class2img(Class2ImgOptions(classes=classes, **quiet()), models["class"])


JOBS: dict[str, tuple[Callable[[dict[str, Any], Any], Any], set[str]]] = {  # program -> its function, and its models
    "txt2img.py": (lambda given, model: txt2img(Txt2ImgOptions(**given), model), {"text", "no condition"}),
    "img2img": (
        lambda given, model: img2img(Img2ImgOptions(init_img=picture(32, 32), **given), model),
        {"text", "no condition"},
    ),
    "scripts/inpaint.py": (
        lambda given, model: inpaint(InpaintOptions(init_img=picture(32, 32), mask=torch.ones(32, 32), **given), model),
        {"text", "no condition", "in-painting"},
    ),
    "scripts/depth2img.py": (
        lambda given, model: depth2img(Depth2ImgOptions(init_img=picture(32, 32), **given), model), {"depth"},
    ),
    "scripts/superresolution.py": (
        lambda given, model: superresolution(SuperresolutionOptions(init_img=picture(8, 8), **given), model),
        {"up-scaling"},
    ),
    "scripts/variations.py": (
        lambda given, model: variations(VariationsOptions(init_img=picture(32, 32), **given), model),
        {"image embedding"},
    ),
    "scripts/class2img.py": (lambda given, model: class2img(Class2ImgOptions(**given), model), {"class"}),
}  # fmt: skip
RIGHT = {"text": "txt2img.py", "no condition": "txt2img.py", "in-painting": "scripts/inpaint.py",
         "depth": "scripts/depth2img.py", "up-scaling": "scripts/superresolution.py",
         "image embedding": "scripts/variations.py", "class": "scripts/class2img.py"}  # fmt: skip


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("kind", RIGHT)
def test_a_model_of_another_job_is_one_sentence_that_names_the_right_command(
    models: dict[str, Any], job: str, kind: str
) -> None:
    make, takes = JOBS[job]
    given = quiet(n_samples=1, steps=1)
    if kind in takes:
        assert len(make(given, models[kind])) == 1
        return
    with pytest.raises(UserError) as caught:
        make(given, models[kind])
    assert f"python {RIGHT[kind]}" in str(caught.value) and "\n" not in str(caught.value)

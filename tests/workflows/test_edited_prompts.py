"""Edits of pictures by their prompts, as a request."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ldm.pictures.images import read_parameters
from ldm.util import UserError
from ldm.workflows.request import Txt2ImgOptions
from ldm.workflows.txt2img import Made, txt2img
from ldm.workflows.watch import Watch
from tests.workflows.restyling import picture


@pytest.fixture
def options(tmp_path: Path) -> Txt2ImgOptions:
    return Txt2ImgOptions(
        prompt="a red circle", outdir=str(tmp_path / "out"), steps=5, n_samples=1, progress=False, skip_grid=True
    )


def pixels(image: Any) -> np.ndarray:
    return np.asarray(image, dtype=int)


def made(options: Txt2ImgOptions, model: Any) -> list[Made]:
    found: list[Made] = []
    txt2img(options, model, Watch(on_result=found.append))
    return found


def differ(one: Any, other: Any) -> int:
    return int(abs(pixels(one) - pixels(other)).max())


def test_an_edit_of_a_new_picture(options: Txt2ImgOptions, model: Any) -> None:
    """The first picture is what its prompt gives alone; the second is neither that nor what its own gives alone."""
    options = replace(options, guidance_scale=20.0)  # random weights do not make much of a prompt
    (one,) = made(replace(options, edit="a blue circle"), model)
    alone, other = (made(replace(options, prompt=prompt), model)[0] for prompt in ("a red circle", "a blue circle"))
    assert one.source is not None and differ(one.source, alone.image) <= 1
    assert differ(one.image, one.source) > 1 and differ(one.image, other.image) > 1
    about = read_parameters(Path(options.outdir) / "samples" / "00000.png")
    assert isinstance(about, dict) and about["edit"] == "a blue circle" and about["edit_cross"] == 0.8
    assert differ(Image.open(Path(options.outdir) / "source" / "00000.png"), one.source) == 0
    free = made(replace(options, edit="a blue circle", edit_cross=0.0, edit_self=0.0), model)
    assert differ(free[0].image, other.image) <= 1
    same = made(replace(options, edit="a red circle", edit_cross=1.0, edit_self=1.0), model)
    assert differ(same[0].image, alone.image) <= 1


@pytest.mark.parametrize("change", [{"guidance_scale": 1.0}, {"sampler": "dpm_solver"}, {"sampler": "euler_ancestral"}])
def test_an_edit_is_its_seed(options: Txt2ImgOptions, model: Any, change: dict[str, Any]) -> None:
    asked = replace(options, edit="a blue circle on a", reweight="blue:2", blend="blue", **change)
    together, alone = made(replace(asked, n_samples=2), model), made(replace(asked, seed=43), model)
    assert differ(together[1].image, alone[0].image) <= 1 and differ(together[1].source, alone[0].source) <= 1
    assert not any("attend" in vars(module) for module in model.modules())


def test_weights_of_an_edit(options: Txt2ImgOptions, model: Any) -> None:
    plain = made(options, model)[0].image
    for reweight in ("red:4", {"red": 4.0}, "red circle:0.0, a:1"):
        assert differ(made(replace(options, reweight=reweight), model)[0].image, plain) > 1
    assert differ(made(replace(options, reweight="red:1"), model)[0].image, plain) <= 1


def test_a_photograph(options: Txt2ImgOptions, model: Any, tmp_path: Path) -> None:
    """What the edit began from is the photograph itself, as the autoencoder has it, whatever guidance did."""
    picture(tmp_path / "photo.png", 1)
    asked = replace(options, edit="a blue circle", edit_photo=str(tmp_path / "photo.png"), guidance_scale=7.5)
    (one,) = made(asked, model)
    (same,) = made(replace(asked, edit="a red circle", edit_cross=1.0, edit_self=1.0, guidance_scale=1.0), model)
    assert one.source is not None and differ(one.source, same.source) == 0
    assert differ(one.image, one.source) > 1


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"blend": "red"}, "--blend needs --edit"),
    ({"edit_photo": "photo.png"}, "--edit_photo needs --edit"),
    ({"edit": "a blue circle", "boxes": "red: 0 0 1 1"}, "do not go together"),
    ({"edit": "a blue circle", "edit_cross": 2.0}, "from 0 to 1"), ({"edit_self": -1.0}, "from 0 to 1, got -1.0"),
    ({"reweight": "red"}, "--reweight takes"),
    ({"reweight": "red:nan"}, "--reweight takes"),
    ({"reweight": "dog:2"}, "no word 'dog'"),
    ({"edit": "a blue circle", "blend": "dog"}, "has a word of --blend"),
    ({"reweight": "red:2", "blend": "auto"}, "none do"),
    ({"edit": "a blue circle", "edit_photo": "nowhere.png"}, "nowhere.png"),
]


@pytest.mark.parametrize(("change", "what"), REFUSED)
def test_what_is_refused(options: Txt2ImgOptions, model: Any, change: dict[str, Any], what: str) -> None:
    with pytest.raises(UserError, match=what):
        txt2img(replace(options, **change), model)
    assert not list(Path(options.outdir).rglob("*.png"))


def test_a_photograph_needs_its_inversions_steps(options: Txt2ImgOptions, model: Any, tmp_path: Path) -> None:
    picture(tmp_path / "photo.png", 1)
    asked = replace(options, edit="a blue circle", edit_photo=str(tmp_path / "photo.png"), sampler="plms")
    with pytest.raises(UserError, match="--sampler ddim"):
        txt2img(asked, model)

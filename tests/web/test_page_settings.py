"""A picture's settings in the fields of the page, from which the page makes that picture again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ldm.web.page import generate
from ldm.web.page.generate import task_of
from ldm.web.page.settings import is_plain, settings_of, values_of
from ldm.workflows import plan
from ldm.workflows.models import open_model
from ldm.workflows.request import Txt2ImgOptions
from ldm.workflows.studio import Studio
from ldm.workflows.txt2img import txt2img
from ldm.workflows.watch import Watch
from tests.workflows.small_model import write_small_model

OTHERS: tuple[Any, ...] = (1, "auto", [], None, 0.75)  # fields that a picture's settings leave alone


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    model: Any = open_model(write_small_model(tmp_path), device="cpu")[0]
    return Studio(model, "small", {**model.origin.inference, "noise_scale": 0.5, "settle": 2})


@pytest.mark.parametrize(("noise_scale", "settle"), [(None, None), (0.7, 3), (1.0, 0)])
def test_the_fields_make_the_picture_again(
    studio: Studio, tmp_path: Path, noise_scale: float | None, settle: int | None
) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    asked: dict[str, Any] = {"prompt": "a red circle", "seed": 7, "steps": 5}
    asked |= {"noise_scale": noise_scale, "settle": settle}
    txt2img(Txt2ImgOptions(**asked, n_samples=1, skip_grid=True, progress=False, outdir=str(first)), studio)
    (path,) = first.rglob("*.png")
    settings = settings_of(path)
    assert settings is not None and is_plain(settings)
    task_of(again, *values_of(settings), *OTHERS)(studio, Watch())
    (other,) = again.rglob("*.png")
    with Image.open(path) as one, Image.open(other) as two:
        assert one.tobytes() == two.tobytes()


def test_the_sliders_end_where_requests_are_refused() -> None:
    assert (generate.LOUDEST, generate.MOST_SETTLED) == (plan.LOUDEST, plan.MOST_SETTLED)


def test_no_field_is_for_no_noise() -> None:
    assert is_plain({"prompt": "a", "noise_scale": 0.5}) and not is_plain({"prompt": "a", "noise_scale": 0.0})

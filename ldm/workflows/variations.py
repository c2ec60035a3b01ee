"""Variations of a picture by its embedding: what ``scripts/variations.py`` does, as a function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PIL import Image

from ldm.pictures.images import image_to_tensor
from ldm.workflows.basis import Basis
from ldm.workflows.drawing import Made, Task
from ldm.workflows.init_pictures import InitPicture, PictureLike, check_given, init_pictures
from ldm.workflows.jobs import made_by
from ldm.workflows.noise_levels import check_noise_level, takes_noise
from ldm.workflows.plan import make_plan
from ldm.workflows.request import Txt2ImgOptions
from ldm.workflows.studio import Studio
from ldm.workflows.watch import Watch

PROGRAM = "scripts/variations.py"


@dataclass
class VariationsOptions(Txt2ImgOptions):
    """Which picture to vary; see ``Txt2ImgOptions`` for the rest. A prompt may lead it somewhere."""

    init_img: PictureLike | None = None  # a file, a folder of which each picture is taken, or a picture at hand
    noise_level: int | None = None  # how much noise its embedding gets: 0 (as it is) and up, below 1000
    prompt: str = ""
    outdir: str = "outputs/variations-samples"


def variations(options: VariationsOptions, model: Any = None, watch: Watch[Made] | None = None) -> list[Image.Image]:
    """Make pictures like a picture with a model that is shown an embedding of it (unCLIP, image variations).

    The size is the model's, or as asked for; the picture itself is seen at that of its encoder. Source: Ramesh et al.
    2022.

    Raises:
        UserError: as ``txt2img``; or there is no picture, the model sees none, or the noise is more than it knows.
    """
    check_given(options.init_img)
    check_noise_level(options.noise_level)
    return made_by(
        PROGRAM, options, model, watch,
        lambda studio: (_task(options, studio, one) for one in init_pictures(options.init_img)),
    )  # fmt: skip


def _task(options: VariationsOptions, studio: Studio, init: InitPicture) -> Task:
    given: dict[str, Any] = {"image": image_to_tensor(init.image)[None]}
    about: dict[str, Any] = {"init_img": init.name}
    shape = None
    if takes_noise(studio, options.noise_level):
        shape = (int(studio.model.noise_augmentor.timestep_dim),)
        if options.noise_level is not None:
            given["noise_level"] = about["noise_level"] = options.noise_level
    return Task(make_plan(options, studio, given), Basis(given=given, noise_shape=shape, about=about), init.prefix)

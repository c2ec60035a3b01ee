"""Pictures made larger by a model that was trained for it: what ``scripts/superresolution.py`` does, as a function."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from ldm.pictures.images import image_to_tensor
from ldm.workflows.basis import Basis
from ldm.workflows.drawing import Made, Task
from ldm.workflows.init_pictures import Fit, InitPicture, PictureLike, check_given, init_pictures
from ldm.workflows.jobs import made_by
from ldm.workflows.noise_levels import check_noise_level, takes_noise
from ldm.workflows.plan import make_plan
from ldm.workflows.request import Txt2ImgOptions
from ldm.workflows.studio import Studio
from ldm.workflows.watch import Watch

PROGRAM = "scripts/superresolution.py"


@dataclass
class SuperresolutionOptions(Txt2ImgOptions):
    """Which picture to make larger; see ``Txt2ImgOptions`` for the rest. Its size times the model's factor is made."""

    init_img: PictureLike | None = None  # a file, a folder of which each picture is taken, or a picture at hand
    noise_level: int | None = None  # how much noise it gets, for details that were not there; 20
    longest: int | None = None  # pixels of the small picture; no side gets longer
    prompt: str = ""
    outdir: str = "outputs/superresolution-samples"


def superresolution(
    options: SuperresolutionOptions, model: Any = None, watch: Watch[Made] | None = None
) -> list[Image.Image]:
    """Make a picture larger by the factor of the model's latents, four times for the released ones.

    The network sees the small picture beside the latents, which are as large (Rombach et al. 2022, section 4.4). With
    ``height`` and ``width``, those of the large picture, the middle of the small one is cut out.

    Raises:
        UserError: as ``txt2img``; or there is no picture, or the model is none for this.
    """
    check_given(options.init_img)
    check_noise_level(options.noise_level)

    def tasks(studio: Studio) -> Iterable[Task]:
        fit = _fit(studio, options)
        return (_task(options, studio, one, fit(one.image)) for one in init_pictures(options.init_img))

    return made_by(PROGRAM, options, model, watch, tasks)


def _fit(studio: Studio, options: SuperresolutionOptions) -> Fit:
    """How small pictures get their size; they are as large as the latents."""
    large = Fit.of(studio, options)
    height, width = (side and side // large.factor for side in (large.height, large.width))
    usual = large.usual[0] // large.factor, large.usual[1] // large.factor
    return replace(large, factor=1, usual=usual, height=height, width=width)


def _task(options: SuperresolutionOptions, studio: Studio, init: InitPicture, small: Image.Image) -> Task:
    factor = int(studio.model.first_stage_model.factor)
    given: dict[str, Any] = {"low_res": image_to_tensor(small)[None]}
    about: dict[str, Any] = {"init_img": init.name}
    shape = None
    if takes_noise(studio, options.noise_level):
        shape = (3, small.height, small.width)
        if options.noise_level is not None:
            given["noise_level"] = about["noise_level"] = options.noise_level
    sized = replace(options, height=small.height * factor, width=small.width * factor)
    return Task(make_plan(sized, studio, given), Basis(given=given, noise_shape=shape, about=about), init.prefix)

"""Pictures to pictures: what ``scripts/img2img.py`` does, as a function."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from ldm.pictures.images import image_to_tensor
from ldm.util import UserError
from ldm.workflows.basis import Basis, check_strength
from ldm.workflows.drawing import Made, Task, draw
from ldm.workflows.init_pictures import Fit, InitPicture, PictureLike, check_given, init_pictures
from ldm.workflows.plan import check_needs, make_plan
from ldm.workflows.request import Txt2ImgOptions, read_request
from ldm.workflows.studio import Studio, studio_for
from ldm.workflows.watch import Watch


@dataclass
class Img2ImgOptions(Txt2ImgOptions):
    """What to make of which picture; see ``Txt2ImgOptions`` for the rest. The size is the picture's own."""

    init_img: PictureLike | None = None  # a file, a folder of which each picture is taken, or a picture at hand
    strength: float = 0.75  # 0 the picture as it is, 1 a new one
    longest: int | None = None  # pixels; no side gets longer
    outdir: str = "outputs/img2img-samples"


def img2img(options: Img2ImgOptions, model: Any = None, watch: Watch[Made] | None = None) -> list[Image.Image]:
    """Make new pictures out of a picture, or out of each of a folder, and return them in order.

    A picture gets as much noise as ``strength`` of the steps take away again, under the prompt (Meng et al. 2022,
    SDEdit): 0 gives what the autoencoder makes of it, 1 what ``txt2img`` would make at its size. Each picture of a
    folder gets the same seeds; its results are named after it.

    Args:
        options: see ``Img2ImgOptions``.
        model: a ``Studio``, or a LatentDiffusion; None opens what the options name.
        watch: is told of steps and pictures, and may end the request: then the pictures so far are returned.

    Raises:
        UserError: as ``txt2img``; or there is no picture, or the strength is not between 0 and 1.
    """
    check_init(options)
    request = read_request(options)
    studio = studio_for(options, model)
    check_needs(studio.model)
    fit = Fit.of(studio, options)
    tasks = (task_of(options, studio, one, fit(one.image)) for one in init_pictures(options.init_img))
    return draw(options, request, studio, tasks, watch or Watch())


def check_init(options: Img2ImgOptions) -> None:
    """Refuse what can be refused of a request with a picture before a model is loaded.

    Raises:
        UserError: the strength is not between 0 and 1, there is no picture, or an edit of a prompt is asked for.
    """
    check_strength(options.strength)
    check_given(options.init_img)
    if options.is_edited:
        raise UserError("an edit of a prompt begins from --edit_photo, not from --init-img")


def task_of(
    options: Img2ImgOptions, studio: Studio, init: InitPicture, image: Image.Image, shown: bool = False
) -> Task:
    """What is made of one picture at the size of ``image``; with ``shown`` the model's condition sees it as well."""
    picture = image_to_tensor(image)[None]
    given = {"image": picture} if shown else {}
    plan = make_plan(replace(options, height=image.height, width=image.width), studio, given)
    about = {"init_img": init.name, "strength": options.strength}
    return Task(plan, Basis(picture, options.strength, given=given, about=about), init.prefix)

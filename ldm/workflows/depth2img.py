"""Pictures with the depth of another: what ``scripts/depth2img.py`` does, as a function."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ldm.workflows.drawing import Made, Task
from ldm.workflows.img2img import Img2ImgOptions, check_init, task_of
from ldm.workflows.init_pictures import Fit, init_pictures
from ldm.workflows.jobs import made_by
from ldm.workflows.studio import Studio
from ldm.workflows.watch import Watch

PROGRAM = "scripts/depth2img.py"


@dataclass
class Depth2ImgOptions(Img2ImgOptions):
    """What to make of which picture; see ``Img2ImgOptions``. With strength 1 only its depth is kept."""

    strength: float = 0.9
    outdir: str = "outputs/depth2img-samples"


def depth2img(options: Depth2ImgOptions, model: Any = None, watch: Watch[Made] | None = None) -> list[Image.Image]:
    """Make new pictures out of a picture with a model that is shown its depth (Stable Diffusion 2's depth model).

    Raises:
        UserError: as ``img2img``; or the model is not conditioned on depth.
    """
    check_init(options)

    def tasks(studio: Studio) -> Iterable[Task]:
        fit = Fit.of(studio, options)
        return (task_of(options, studio, one, fit(one.image), shown=True) for one in init_pictures(options.init_img))

    return made_by(PROGRAM, options, model, watch, tasks)

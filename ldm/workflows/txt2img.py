"""Prompts to pictures: what the command ``txt2img.py`` does, as a function."""

from __future__ import annotations

from typing import Any

from PIL.Image import Image

from ldm.workflows.drawing import Made, Task, draw
from ldm.workflows.plan import make_plan
from ldm.workflows.refiner import check_not_refiner
from ldm.workflows.request import Txt2ImgOptions, read_request
from ldm.workflows.studio import studio_for
from ldm.workflows.watch import Watch

__all__ = ["Made", "Txt2ImgOptions", "txt2img"]


def txt2img(options: Txt2ImgOptions, model: Any = None, watch: Watch[Made] | None = None) -> list[Image]:
    """Make pictures from prompts, save them with their parameters, and return them in order.

    Files are ``<outdir>/samples/00000.png`` and on, and ``<outdir>/grid-0000.png``; none is ever overwritten. With
    ``boxes`` the same pictures with the boxes over them are ``<outdir>/boxes/00000.png`` and on, with ``edit`` what it
    began from is in ``<outdir>/source``. A picture is saved as soon as its batch is done, so an interruption loses one
    batch at most. Learned words and adapters are on the model for this request only.

    Args:
        options: see ``Txt2ImgOptions``.
        model: a ``Studio``, or a LatentDiffusion, for example of ``ldm.workflows.models.open_model``; None opens what
            the options name.
        watch: is told of steps and pictures, and may end the request: then the pictures so far are returned.

    Raises:
        UserError: an option does not fit, and nothing has been written; or the model gave no picture; or somebody has
            deleted some of the pictures meanwhile.
    """
    request = read_request(options)
    studio = studio_for(options, model)
    check_not_refiner(studio)
    return draw(options, request, studio, [Task(make_plan(options, studio))], watch or Watch())

"""Requests for models of one job: the model is opened, refused if it is for another, and asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from PIL.Image import Image

from ldm.workflows.drawing import Made, Task, draw
from ldm.workflows.plan import check_job
from ldm.workflows.request import Txt2ImgOptions, read_request
from ldm.workflows.studio import Studio, studio_for
from ldm.workflows.watch import Watch


def made_by(
    program: str,
    options: Txt2ImgOptions,
    model: Any,
    watch: Watch[Made] | None,
    tasks: Callable[[Studio], Iterable[Task]],
) -> list[Image]:
    """The pictures of a request that ``program`` is for.

    Args:
        tasks: what is made, for the model that was opened.

    Raises:
        UserError: as ``ldm.workflows.txt2img.txt2img``; or the model is for another program, which is named.
    """
    request = read_request(options)
    studio = studio_for(options, model)
    check_job(studio, program)
    return draw(options, request, studio, tasks(studio), watch or Watch())

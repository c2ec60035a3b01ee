"""Classes to pictures: what ``scripts/class2img.py`` does, as a function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from ldm.util import UserError
from ldm.workflows.basis import Basis
from ldm.workflows.drawing import Made, Task
from ldm.workflows.jobs import made_by
from ldm.workflows.plan import make_plan
from ldm.workflows.request import Txt2ImgOptions
from ldm.workflows.studio import Studio
from ldm.workflows.watch import Watch

PROGRAM = "scripts/class2img.py"


@dataclass
class Class2ImgOptions(Txt2ImgOptions):
    """Which classes to draw; see ``Txt2ImgOptions`` for the rest. Each class gets the same seeds."""

    classes: Sequence[int] = field(default_factory=lambda: [0])
    prompt: str = ""
    outdir: str = "outputs/class2img-samples"


def class2img(options: Class2ImgOptions, model: Any = None, watch: Watch[Made] | None = None) -> list[Image.Image]:
    """Make pictures of classes, such as ImageNet's, with a model that was trained on their numbers.

    Raises:
        UserError: as ``txt2img``; or the model knows no classes, or not these.
    """
    if not options.classes:
        raise UserError("no class is named: --classes 25 187, for example")
    return made_by(
        PROGRAM, options, model, watch, lambda studio: [_task(options, studio, number) for number in options.classes]
    )


def _task(options: Class2ImgOptions, studio: Studio, number: int) -> Task:
    known = int(studio.model.cond_stage_model.n_classes)
    if not 0 <= number < known:
        raise UserError(f"'{studio.name}' knows the classes 0 to {known - 1}, got {number}")
    given = {"class_label": number}
    name = f"{number:04d}-" if len(options.classes) > 1 else ""
    return Task(make_plan(options, studio, given), Basis(given=given, about=given), name)

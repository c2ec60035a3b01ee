"""Where things go in a film, for a film model that sees its first frame moved along a path: as asked, or by chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ldm.draws import uniform
from ldm.pictures.rim import thing_box
from ldm.util import UserError
from ldm.world.motion import DRAWN, SIDES, Course, draw_course

if TYPE_CHECKING:
    from ldm.models.diffusion.latent import LatentModel

# what a thing does besides going on -> the manner of its course, and whether it turns clockwise
MANNERS = {
    "move": ("move", True), "turn": ("turn", True), "turn-left": ("turn", False), "grow": ("grow", True),
    "shrink": ("shrink", True),
}  # fmt: skip


def check_course(heading: float | None, manner: str | None) -> None:
    """Raises UserError for a heading or a manner that does not exist."""
    if heading is not None and not -360 <= heading <= 360:
        raise UserError(f"--heading is in degrees clockwise from the right, -360 to 360, got {heading}")
    if manner is not None and manner not in MANNERS:
        raise UserError(f"--manner is one of {', '.join(MANNERS)}, not '{manner}'")


def takes_path(model: LatentModel) -> bool:
    """Whether a film model sees its first frame moved along a path."""
    return "path" in {need.name for need in model.needs.required}


def course_of(seed: int, motion: float, fps: float, heading: float | None = None, manner: str | None = None) -> Course:
    """The course of a film of a seed; what is None is drawn as in the films that the small film model learned from."""
    drawn = draw_course(np.array([uniform(seed, 0, f"course {i}")[0] for i in range(DRAWN)]))
    course = replace(drawn, motion=motion, fps=fps)
    if heading is not None:
        course = replace(course, heading=heading)
    if manner is not None:
        name, clockwise = MANNERS[manner]
        course = replace(course, manner=name, clockwise=clockwise)
    return course


def course_from(image: Image.Image, course: Course) -> Course:
    """A course that begins where a picture's thing is: what differs from the picture's rim, else the middle."""
    left, top, right, bottom = thing_box(image) or (0.25, 0.25, 0.75, 0.75)
    x, y = (left + right) / 2, (top + bottom) / 2
    side = float(np.clip(max(right - left, bottom - top), *SIDES))
    room = 2 * min(x, 1 - x, y, 1 - y)  # a thing at the picture's edge does not bounce off it at once
    return replace(course, x=x, y=y, side=min(side, room))


def path_given(
    model: LatentModel, images: Sequence[Image.Image], courses: Sequence[Course], frames: int
) -> dict[str, Any]:
    """What ``model.condition`` gets of the courses of films from their first frames: nothing where it takes no path."""
    if not takes_path(model):
        return {}
    import torch  # not for the page, which wants the names

    paths = [course_from(*pair).path(frames) for pair in zip(images, courses, strict=True)]
    return {"path": torch.from_numpy(np.stack(paths))}

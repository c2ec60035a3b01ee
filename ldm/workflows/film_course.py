"""Where things go in a film, for a film model that sees its first frame moved along a path: as asked, or by chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ldm.draws import uniform
from ldm.pictures.rim import thing_box
from ldm.util import UserError
from ldm.world.motion import DRAWN, SIDES, Course, bounced, draw_course

if TYPE_CHECKING:
    from torch import Tensor

    from ldm.models.diffusion.latent import LatentModel

Array = NDArray[np.float32]

NO_COURSE = "'{}' is not told where things go: it takes no heading and no manner"
MOST_MARGIN = 0.45  # of a side: what fills the picture still moves a little
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


def path_from(image: Image.Image, course: Course, frames: int) -> Array:
    """The path of a picture's thing on a course, [frames, 4] float32 as ``ldm.moved`` takes it.

    It begins where the thing is that stands out from the picture's rim, else in the middle. Each edge turns it back
    where it touches it. Speeds are in shorter sides of the picture.
    """
    left, top, right, bottom = thing_box(image) or (0.25, 0.25, 0.75, 0.75)
    poses = replace(course, x=0.5, y=0.5, side=float(np.clip(max(right - left, bottom - top), *SIDES))).poses(frames)
    angle, way = math.radians(course.heading), np.arange(frames) * course.step * min(image.size)
    x = along(left, right, way * math.cos(angle) / image.width)
    y = along(top, bottom, way * math.sin(angle) / image.height)
    return np.stack([x, y, poses.turn, np.log(poses.side / poses.side[0])], axis=1).astype(np.float32)


def along(begin: float, end: float, way: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Where the middle of what reaches from ``begin`` to ``end`` in [0, 1] is after each way; edges turn it back."""
    middle = (begin + end) / 2
    margin = min((end - begin) / 2, middle, 1 - middle, MOST_MARGIN)  # at an edge it does not turn at once
    return bounced(middle + way, margin)


def path_given(
    model: LatentModel, images: Sequence[Image.Image], courses: Sequence[Course], frames: int
) -> dict[str, Tensor]:
    """The paths [B, T, 4] of films on courses from their first frames, by name; {} for a model that takes none."""
    if not takes_path(model):
        return {}
    import torch  # not for the page, which wants the names

    paths = [path_from(image, course, frames) for image, course in zip(images, courses, strict=True)]
    return {"path": torch.from_numpy(np.stack(paths))}

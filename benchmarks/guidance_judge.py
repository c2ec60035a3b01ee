"""Two plain shapes on a plain background: prompts, boxes, true pictures, and a judge that knows nothing but colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import find_objects, label
from skimage.color import deltaE_ciede2000, rgb2lab

from ldm.control.regions import Box
from ldm.world.figures import SHAPE_DISTANCES, coverage
from ldm.world.scene import COLOURS, SHAPES

NEAR = 30.0  # CIEDE2000 from a colour that still passes for it
LEAST = 0.01  # of the picture; a smaller spot is no thing
OUTLINES = tuple(name for name in SHAPES if name not in ("oval", "rectangle"))  # a circle and a square, stretched
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Shape:
    """A plain shape and where it is wanted."""

    name: str
    colour: str
    box: Box

    @property
    def words(self) -> str:
        return f"{self.colour} {self.name}"


@dataclass(frozen=True)
class Task:
    """What a picture is to show."""

    ground: str
    shapes: tuple[Shape, ...]
    seed: int
    between: str = "and"

    @property
    def prompt(self) -> str:
        things = [f"{_article(shape.colour)} {shape.words}" for shape in self.shapes]
        return f"{f' {self.between} '.join(things)} on {_article(self.ground)} {self.ground} background"

    @property
    def boxes(self) -> dict[str, list[float]]:
        return {shape.words: list(shape.box.sides) for shape in self.shapes}

    def true(self, size: int = 64) -> Image.Image:
        """The picture itself."""
        canvas = np.empty((size, size, 3), np.float32)
        canvas[:] = COLOURS[self.ground]
        for shape in self.shapes:
            left, top, right, bottom = (round(side * size) for side in shape.box.sides)
            side = min(right - left, bottom - top)
            part = canvas[top : top + side, left : left + side]
            cover = coverage(SHAPE_DISTANCES[shape.name], side)[..., None]
            part[:] = part * (1 - cover) + cover * np.asarray(COLOURS[shape.colour], np.float32)
        return Image.fromarray(canvas.round().astype(np.uint8))


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def tasks(count: int, seed: int, shapes: int = 2, between: str = "and") -> list[Task]:
    """Prompts with boxes side by side or one above the other, in random sizes and places; colours all differ."""
    draw = np.random.default_rng(seed)
    made = []
    for number in range(count):
        colours = draw.choice(list(COLOURS), size=shapes + 1, replace=False)
        names = draw.choice(OUTLINES, size=shapes, replace=False)
        across = bool(draw.integers(2))
        placed = [_box(draw, part, shapes, across) for part in range(shapes)]
        things = tuple(Shape(str(n), str(c), b) for n, c, b in zip(names, colours[1:], placed, strict=True))
        made.append(Task(str(colours[0]), things, seed + number, between))
    return made


def _box(draw: np.random.Generator, part: int, parts: int, across: bool) -> Box:
    """A square in one of the halves of a picture."""
    room = 1 / parts
    side = float(draw.uniform(0.7, 0.9)) * room
    along = part * room + float(draw.uniform(0, room - side))
    beside = float(draw.uniform(0.05, 0.95 - side))
    left, top = (along, beside) if across else (beside, along)
    return Box(*(round(value, 3) for value in (left, top, left + side, top + side)))


@dataclass(frozen=True)
class Found:
    """What the judge saw of a shape."""

    there: bool
    centred: bool = False  # its centre lies in its box
    overlap: float = 0.0  # of its own box with the one that was asked for
    right: bool = False  # of all outlines, its own is nearest to that of the shape that was asked for


def judge(picture: Image.Image, task: Task) -> list[Found]:
    """One for each shape of a task: the largest spot that is nearer to its colour than to the others'."""
    lab = rgb2lab(np.asarray(picture.convert("RGB")))
    wanted = [COLOURS[name] for name in (task.ground, *(shape.colour for shape in task.shapes))]
    distances = np.stack([deltaE_ciede2000(lab, rgb2lab(np.full(lab.shape, rgb) / 255.0)) for rgb in wanted])
    nearest = distances.argmin(axis=0)
    found = []
    for number, shape in enumerate(task.shapes, start=1):
        spots, count = label((nearest == number) & (distances[number] < NEAR))
        areas = np.bincount(spots.ravel(), minlength=count + 1)[1:]
        large = areas.max(initial=0) >= LEAST * spots.size
        found.append(_seen(spots == areas.argmax() + 1, shape) if large else Found(False))
    return found


def _seen(spot: NDArray[np.bool_], shape: Shape) -> Found:
    height, width = spot.shape
    rows, columns = find_objects(spot.astype(np.int32))[0]
    own = (columns.start / width, rows.start / height, columns.stop / width, rows.stop / height)
    middle = ((own[0] + own[2]) / 2, (own[1] + own[3]) / 2)
    left, top, right, bottom = shape.box.sides
    centred = left <= middle[0] <= right and top <= middle[1] <= bottom
    return Found(True, centred, overlap(own, shape.box.sides), outline(spot[rows, columns]) == shape.name)


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes."""
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / (sum(areas) - width * height)


def outline(spot: NDArray[np.bool_]) -> str:
    """The shape whose outline, made as wide and as high, a spot cut to its own box is most like."""
    scores = {}
    for name in OUTLINES:
        cover = coverage(SHAPE_DISTANCES[name], 64) > 0.5
        rows, columns = find_objects(cover.astype(np.int32))[0]
        cut = Image.fromarray(cover[rows, columns]).resize(spot.shape[::-1], Image.Resampling.NEAREST)
        true = np.asarray(cut, bool)
        scores[name] = float((true & spot).sum() / (true | spot).sum())
    return max(scores, key=lambda name: scores[name])

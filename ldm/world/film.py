"""Films of the second world: one thing that moves, turns, grows or bounces before a background that stays as it is."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter
from torch.utils.data import Dataset

from ldm.draws import number_of, uniform
from ldm.moved import moved_along
from ldm.util import UserError
from ldm.world.draw_scenes import PLAIN_SHAPES, chosen_objects, pick
from ldm.world.grounds import ground
from ldm.world.motion import DRAWN, Course, Pose, draw_course
from ldm.world.paint import DARK, HIDDEN, LIGHT, check_size, hidden_share, layer
from ldm.world.scene import COLOURS, GROUNDS, KEPT_OUT, SHAPES, TEXTURES, Scene, Split, Thing
from ldm.world.sentences import say

Array = NDArray[np.float32]

SPLIT_SEED = 20261126
HELD_OUT = 0.1  # share of the pairs of a thing and a background that training never sees
FINE = 2  # samples along the side of a pixel
SPRITE = 96  # pixels along the side of a thing's drawing, before it is turned and made smaller


@dataclass(frozen=True)
class Film:
    """What a film shows: a thing (its place is the course's), before a background."""

    thing: Thing
    ground: str
    course: Course

    @property
    def held_out(self) -> bool:
        """Whether training never sees the thing before this background."""
        return is_held_out(self.thing.kind, self.ground)


@lru_cache(maxsize=100_000)
def is_held_out(kind: str, ground_name: str) -> bool:
    """Whether a thing (with a shape's colour) is never shown before a background, in whatever way it moves."""
    return bool(uniform(SPLIT_SEED, 0, f"film {kind} {ground_name}")[0] < HELD_OUT)


class FilmWorld(Dataset[dict[str, Any]]):
    """Films with sentences about what they show; every film is a function of (seed, index).

    Items are {"frames": [T, size, size, 3] float32 in [-1, 1], "fps": float, "motion": float, "caption": str}. The
    motion number says how fast all is that a thing does, see ``ldm.world.motion.Course``. With ``moved`` the frames are
    2T, behind those of the film the first one, moved along the thing's path, and there is "moved": True.

    Args:
        split: "train", "heldout" (a thing before a background that training never shows it before) or "all".
        frames: T.
        size: width and height in pixels, a multiple of 16.
        length: how many items.
        seed: another seed, other items.
        objects: how many objects, the first ones of the atlas; None for all.
        shapes: share of geometric shapes among the things.
        caption_dropout: share of empty captions.
        moved: whether items have the first frame moved as well.

    Raises:
        UserError: a split, size, share or number that does not exist.
    """

    def __init__(
        self,
        split: Split = "train",
        frames: int = 8,
        size: int = 64,
        length: int = 10_000,
        seed: int = 0,
        objects: int | None = 64,
        shapes: float = 0.5,
        caption_dropout: float = 0.5,
        moved: bool = False,
    ) -> None:
        if split not in ("train", "heldout", "all"):
            raise UserError(f"the world has no split '{split}'; it has: train, heldout, all")
        for name, share in (("shapes", shapes), ("caption_dropout", caption_dropout)):
            if not 0 <= share <= 1:
                raise UserError(f"{name} is a share between 0 and 1, got {share}")
        if length < 1 or frames < 2:
            raise UserError(f"a world of films needs length >= 1 and frames >= 2, got {length} and {frames}")
        check_size(size)
        self.split, self.frames, self.size, self.length, self.seed = split, frames, size, length, seed
        self.names, self.shapes, self.caption_dropout = chosen_objects(objects), shapes, caption_dropout
        self.moved = moved

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        film = self.films([index])[0]
        frames = paint_film(film, self.frames, self.size)
        if self.moved:
            frames = np.concatenate([frames, first_moved(frames[0], film.course, self.frames)])
        return {"frames": frames, **self.labels_of([index])[0]}

    def films(self, indices: Sequence[int]) -> list[Film]:
        """What items show."""
        numbers = np.asarray([number_of(index, self.length) for index in indices], np.int64)
        courses = np.stack([uniform(self.seed, numbers, f"course {i}") for i in range(DRAWN)], axis=1)
        things = np.stack([uniform(self.seed, numbers, f"film {i}") for i in range(6)], axis=1)
        return [self._film(thing, course) for thing, course in zip(things, courses, strict=True)]

    def _film(self, row: NDArray[np.float64], course: NDArray[np.float64]) -> Film:
        thing = draw_thing(row, self.names, self.shapes)
        grounds = tuple(GROUNDS)
        start = int(row[5] * len(grounds))
        for i in range(len(grounds)):
            name = grounds[(start + i) % len(grounds)]
            if self.split == "all" or is_held_out(thing.kind, name) == (self.split == "heldout"):
                return Film(thing, name, draw_course(course))
        # some thing has no background held out: another one then, which has
        return self._film(np.mod(row + 0.37, 1.0), course)

    def labels(self, index: int) -> dict[str, Any]:
        """A sentence for an item, drawn from Python's generator, and its numbers."""
        return self.labels_of([index])[0]

    def labels_of(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """``labels`` of each of many items."""
        found = []
        for film in self.films(indices):
            said = random.random() >= self.caption_dropout
            scene = Scene(film.ground, (film.thing,))
            caption = say(scene, "en", random.Random(random.random())) if said else ""
            course = film.course
            numbers = {"fps": np.float32(course.fps), "motion": np.float32(course.motion)}
            found.append({"caption": caption, **numbers, **({"moved": True} if self.moved else {})})
        return found


def draw_thing(row: NDArray[np.float64], names: tuple[str, ...], shapes: float) -> Thing:
    """The thing of a row of draws in [0, 1): an object of those names, or a shape; nothing is said of its place."""
    if row[0] >= shapes:
        return Thing(pick(names, row[1]))
    texture = "plain" if row[2] < PLAIN_SHAPES else pick(TEXTURES[1:], (row[2] - PLAIN_SHAPES) / (1 - PLAIN_SHAPES))
    shape = pick(SHAPES, row[1])
    return Thing(shape, None, None, pick(tuple(COLOURS), row[3]), "plain" if (shape, texture) in KEPT_OUT else texture)


def paint_film(film: Film, frames: int = 8, size: int = 64) -> Array:
    """The frames of a film, [T, size, size, 3] float32 in [-1, 1]."""
    poses, behind = film.course.poses(frames), ground(film.ground, size)
    layers = placed(standing_out(film, size), poses, size)
    pictures = behind * (1 - layers[..., 3:]) + layers[..., :3]
    return np.clip(pictures * 2 - 1, -1, 1).astype(np.float32)


def first_moved(first: Array, course: Course, frames: int) -> Array:
    """A first frame [size, size, 3], all of it moved as the thing in it is, [T, size, size, 3]."""
    picture = torch.from_numpy(first).permute(2, 0, 1)[None]
    return moved_along(picture, torch.from_numpy(course.path(frames))[None])[0].permute(0, 2, 3, 1).numpy()


def silhouettes(film: Film, frames: int = 8, size: int = 64) -> Array:
    """How much of each pixel the thing covers in each frame, outlines not counted, [T, size, size] in [0, 1]."""
    return placed(layer(film.thing, SPRITE, SPRITE * 2), film.course.poses(frames), size)[..., 3]


def standing_out(film: Film, size: int) -> Array:
    """A thing's drawing [SPRITE, SPRITE, 4], outlined in all frames where it would not stand out in the first."""
    drawn = layer(film.thing, SPRITE, SPRITE * 2)  # a pattern is as fine as in a picture that the thing fills half of
    behind = ground(film.ground, size)
    first = film.course.poses(1)
    if hidden_share(placed(drawn, first, size)[0], behind) <= HIDDEN:
        return drawn
    width = max(1, round(SPRITE / (film.course.side * size)))  # one pixel of the picture
    halo = maximum_filter(drawn[..., 3], 2 * width + 1)[..., None]
    inside = placed(drawn, first, size)[0, ..., 3] > 0.5
    tone = DARK if behind[inside].mean() > 0.45 else LIGHT
    colours = drawn[..., :3] + (1 - drawn[..., 3:]) * halo * tone
    return np.concatenate([colours, drawn[..., 3:] + (1 - drawn[..., 3:]) * halo], axis=-1).astype(np.float32)


def placed(drawn: Array, poses: Pose, size: int) -> Array:
    """A drawing [side, side, 4], colours times coverage, as it lies in each frame: [T, size, size, 4] in [0, 1]."""
    angle = np.radians(poses.turn)
    scale = 1 / poses.side
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    # from the picture's [-1, 1] to the drawing's: take the middle away, turn back, enlarge
    x, y = 2 * poses.x - 1, 2 * poses.y - 1
    matrix = np.stack([np.stack([cos, sin, -cos * x - sin * y], -1), np.stack([-sin, cos, sin * x - cos * y], -1)], 1)
    fine = size * FINE
    grid = F.affine_grid(torch.from_numpy(matrix.astype(np.float32)), [len(x), 4, fine, fine], align_corners=False)
    source = torch.from_numpy(np.ascontiguousarray(drawn.transpose(2, 0, 1))).expand(len(x), -1, -1, -1)
    lying = F.avg_pool2d(F.grid_sample(source, grid, padding_mode="zeros", align_corners=False), FINE)
    return lying.permute(0, 2, 3, 1).numpy()

"""An independent judge of pictures of scenes: classical measures against true renders, learned from nothing.

A picture is right where its background is the one asked for, each thing is the nearest of all that could stand there,
in its colours, in its place, with its outline. What the wish leaves open may be anything the world has. The thresholds
are about what a person notices, and were set on true renders and planted faults only: no model's pictures were looked
at. Colour differences are CIEDE2000 (Sharma, Wu and Dalal 2005).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter, maximum_filter, minimum_filter
from skimage.color import deltaE_ciede2000, rgb2lab

from ldm.world.grounds import CELL, ground
from ldm.world.objects import objects
from ldm.world.paint import box, compose, layer, paint, silhouette
from ldm.world.scene import COLOURS, GROUNDS, KEPT_OUT, SHAPES, SIZES, TEXTURES, Scene, Thing

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

SHIFT = 5.0  # largest CIEDE2000 between mean colours that passes for the same colour
SEEN = 10.0  # a pixel that differs from the background by more belongs to a thing
OVERLAP = 0.6  # smallest intersection over union with the true silhouette
ASTRAY = 0.08  # largest distance of a silhouette's centre from the true one, in widths of the picture
BLUR = 0.8  # pixels: both sides of a comparison are softened, so that a slightly soft picture is not another thing


@dataclass(frozen=True)
class Verdict:
    """What the judge found on one picture."""

    ground: bool
    things: bool  # each is the nearest true one, texture and shape included
    colours: bool  # of things and background, within SHIFT
    place: bool
    outline: bool
    seen: tuple[str, ...]  # the background and the things that were seen
    true: Scene  # the complete scene that was asked for and is most like the picture
    ground_error: float  # mean CIEDE2000 of the background's pixels against the true render
    thing_error: float  # of the things' pixels
    overlap: float
    edge_width: float  # of edges, in units of the true render's

    @property
    def shown(self) -> bool:
        """Whether background, things, places and outlines are those asked for; shades may be off by a little.

        A background that is off by more than SEEN looks like a thing everywhere, so that it is not shown.
        """
        return self.ground and self.things and self.place and self.outline

    @property
    def right(self) -> bool:
        """Whether all of it is there: background, things, colours, places and outlines."""
        return self.shown and self.colours


def judge(picture: Array, wish: Scene) -> Verdict:
    """Judge a picture [size, size, 3] in [-1, 1] against a wish, in which None leaves things open.

    Raises:
        UserError: a size that scenes do not have.
    """
    lab = to_lab(picture)
    seen_ground = nearest_ground(lab)
    base = wish if wish.ground is not None else replace(wish, ground=seen_ground)
    true = nearest_completion(lab, base)
    size = len(lab)
    true_lab, empty = to_lab(paint([true], size)[0]), ground_lab(str(true.ground), size)
    inside = silhouette(true, size) > 0.5
    core, outside = binary_erosion(inside), ~binary_dilation(np.asarray(silhouette(true, size) > 0), iterations=2)
    names = tuple(nearest_thing(lab, true, number) for number in range(len(true.things)))
    difference = deltaE_ciede2000(lab, true_lab)
    found, wanted = deltaE_ciede2000(lab, empty) > SEEN, deltaE_ciede2000(true_lab, empty) > SEEN
    shifts = [mean_shift(lab, true_lab, part) for part in (*parts_of(true, core), outside)]
    return Verdict(
        ground=wish.ground in (None, seen_ground),
        things=all(_same(name, thing) for name, thing in zip(names, true.things, strict=True)),
        colours=max(shifts) <= SHIFT,
        place=_distance(found, wanted) <= ASTRAY * size,
        outline=overlap_of(found, wanted) >= OVERLAP,
        seen=(seen_ground, *(f"{t.colour} {t.texture} {t.name}" if t.is_shape else t.name for t in names)),
        true=true,
        ground_error=float(difference[outside].mean()) if outside.any() else 0.0,
        thing_error=float(difference[core].mean()) if core.any() else 0.0,
        overlap=overlap_of(found, wanted),
        edge_width=edge_width(lab[..., 0], true_lab[..., 0]),
    )


def to_lab(picture: Array) -> Array:
    """CIELAB of pictures [..., 3] in [-1, 1]."""
    return np.asarray(rgb2lab(np.clip((picture + 1) / 2, 0, 1)), np.float32)


@cache
def ground_lab(name: str, size: int) -> Array:
    """CIELAB of an empty background, [size, size, 3]."""
    return to_lab(ground(name, size) * 2 - 1)


def nearest_ground(lab: Array) -> str:
    """The background that the border of a picture's CIELAB [size, size, 3], one cell wide, is most like.

    A thing may cover less than half of it.
    """
    size = len(lab)
    border = np.ones((size, size), bool)
    border[CELL:-CELL, CELL:-CELL] = False
    distances = {name: np.median(deltaE_ciede2000(lab[border], ground_lab(name, size)[border])) for name in GROUNDS}
    return min(distances, key=lambda name: distances[name])


def completions(wish: Scene) -> Iterator[Scene]:
    """All complete scenes that a wish with a background stands for: an unsaid place is the middle, a texture plain."""
    both = len(wish.things) == 2
    arranged = [wish.things, wish.things[::-1]] if both and wish.relation is None else [wish.things]
    for things in arranged:
        if both and wish.relation is None:
            things = tuple(replace(t, place=place) for t, place in zip(things, ("left", "right"), strict=True))
        for chosen in itertools.product(*(_complete(thing, both) for thing in things)):
            yield Scene(wish.ground, tuple(chosen))


def _complete(thing: Thing, small: bool) -> list[Thing]:
    place = thing.place or "middle"
    sizes = [thing.size] if thing.size else ["small"] if small or place != "middle" else list(SIZES)
    if not thing.is_shape:
        return [Thing(thing.name, size, place) for size in sizes]
    colours = [thing.colour] if thing.colour else list(COLOURS)
    return [Thing(thing.name, s, place, c, thing.texture or "plain") for s, c in itertools.product(sizes, colours)]


def nearest_completion(lab: Array, wish: Scene) -> Scene:
    """The completion of a wish whose true render is most like a picture, in CIELAB [size, size, 3]."""
    scenes = list(completions(wish))
    if len(scenes) == 1:
        return scenes[0]
    renders = paint(scenes, len(lab))
    distances = [float(np.linalg.norm(to_lab(render) - lab, axis=-1).mean()) for render in renders]
    return scenes[int(np.argmin(distances))]


def nearest_thing(lab: Array, scene: Scene, number: int) -> Thing:
    """Which thing stands in the place of a complete scene's thing: the nearest true one of all that could.

    ``lab`` is the picture's CIELAB [size, size, 3].
    """
    thing = scene.things[number]
    where = box(str(thing.size), str(thing.place), len(lab))
    rivals = list(candidates(thing))
    return rivals[nearest_layer(lab, str(scene.ground), where, [layer(one, where[2], len(lab)) for one in rivals])]


def nearest_layer(lab: Array, ground_name: str, where: tuple[int, int, int], layers: Sequence[Array]) -> int:
    """Which of many layers [side, side, 4], laid over a background, is most like what is seen there: its index.

    Args:
        lab: the picture's CIELAB, [size, size, 3].
        where: left, top and side of the place in pixels.
    """
    left, top, side = where
    window = slice(top, top + side), slice(left, left + side)
    soft = gaussian_filter(lab[window], (BLUR, BLUR, 0))
    views = np.empty((len(layers), side, side, 3), np.float32)
    for view, one in zip(views, layers, strict=True):
        canvas = ground(ground_name, len(lab)).copy()
        compose(canvas, one, left, top)
        view[:] = canvas[window]
    seen = gaussian_filter(to_lab(views * 2 - 1), (0, BLUR, BLUR, 0))
    return int(np.argmin(np.linalg.norm(seen - soft, axis=-1).mean((1, 2))))


def candidates(thing: Thing) -> Iterator[Thing]:
    """Everything that could be taken for a thing: all objects, all shapes alike, and the shape in other looks."""
    size, place = thing.size, thing.place
    yield from (Thing(name, size, place) for name in objects())
    colour, texture = thing.colour or "red", thing.texture or "plain"
    looks = {(name, colour, texture) for name in SHAPES}
    if thing.is_shape:
        looks |= {(thing.name, c, t) for c, t in itertools.product(COLOURS, TEXTURES)}
    looks = {look for look in looks if (look[0], look[2]) not in KEPT_OUT}
    yield from (Thing(name, size, place, c, t) for name, c, t in sorted(looks))


def mean_shift(lab: Array, true: Array, where: Mask) -> float:
    """CIEDE2000 between the mean colours of a part [H, W] of two pictures [H, W, 3]; 0 where the part is empty."""
    if not where.any():
        return 0.0
    return float(deltaE_ciede2000(lab[where].mean(0), true[where].mean(0)))


def edge_width(lightness: Array, true: Array) -> float:
    """How wide edges are, in units of the true render's: contrast over the steepest slope, at the true edges.

    Both are L of CIELAB, [H, W]; 1 where the true render has no edges.
    """
    slopes = [np.hypot(*np.gradient(gaussian_filter(plane, 0.5))) for plane in (lightness, true)]
    strong = slopes[1] >= np.maximum(0.8 * maximum_filter(slopes[1], 7), 3.0)  # the ridges
    if not strong.any():
        return 1.0
    widths = []
    for plane, slope in zip((lightness, true), slopes, strict=True):
        contrast = (maximum_filter(plane, 11) - minimum_filter(plane, 11))[strong]
        widths.append((contrast / np.maximum(maximum_filter(slope, 5)[strong], 0.5)).mean())
    return float(widths[0] / widths[1])


@dataclass
class Seams:
    """Steps of lightness between neighbouring pixels, at the borders of cells and elsewhere, over many pictures."""

    border: float = 0.0
    border_count: int = 0
    inner: float = 0.0
    inner_count: int = 0

    def add(self, picture: Array, where: Mask | None = None) -> None:
        """Count a picture [size, size, 3] in [-1, 1], only between pixels of ``where``."""
        lightness = to_lab(picture)[..., 0]
        kept = np.ones(lightness.shape, bool) if where is None else where
        for plane, mask in ((lightness, kept), (lightness.T, kept.T)):
            steps, both = np.abs(np.diff(plane, axis=1)), mask[:, 1:] & mask[:, :-1]
            at_border = both & ((np.arange(1, plane.shape[1]) % CELL) == 0)[None]
            self.border += float(steps[at_border].sum())
            self.border_count += int(at_border.sum())
            self.inner += float(steps[both & ~at_border].sum())
            self.inner_count += int((both & ~at_border).sum())

    @property
    def ratio(self) -> float:
        """The mean step at borders over that elsewhere: 1 without seams; NaN where nothing changes at all."""
        if not self.inner or not self.border_count:
            return math.nan
        return (self.border / self.border_count) / (self.inner / self.inner_count)


def overlap_of(found: Mask, wanted: Mask) -> float:
    """Intersection over union of two masks of one shape; 1 where both are empty."""
    union = (found | wanted).sum()
    return float((found & wanted).sum() / union) if union else 1.0


def parts_of(scene: Scene, core: Mask) -> list[Mask]:
    """What of a mask [size, size] belongs to each thing of a complete scene."""
    size = len(core)
    parts = []
    for thing in scene.things:
        left, top, side = box(str(thing.size), str(thing.place), size)
        part = np.zeros_like(core)
        part[top : top + side, left : left + side] = True
        parts.append(part & core)
    return parts


def _same(seen: Thing, asked: Thing) -> bool:
    return (seen.name, seen.texture, seen.colour) == (asked.name, asked.texture, asked.colour)


def _distance(found: Mask, wanted: Mask) -> float:
    if not wanted.any():
        return 0.0
    if not found.any():
        return math.inf
    return float(np.hypot(*(np.argwhere(found).mean(0) - np.argwhere(wanted).mean(0))))

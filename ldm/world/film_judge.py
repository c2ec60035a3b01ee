"""How good a film of the world is, by classical measures against what it was to show; no network of any kind.

The background of the film is known, and with it what stands before it. What that is tells the nearest of all things of
the world, at whatever place, size and turn; how it moves, the middle of what is seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_fill_holes, binary_opening, label, rotate
from scipy.stats import spearmanr

from ldm.world.film import Film
from ldm.world.grounds import ground
from ldm.world.motion import bounced
from ldm.world.objects import objects
from ldm.world.paint import layer
from ldm.world.scene import COLOURS, KEPT_OUT, SHAPES, TEXTURES, Thing

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

SEEN = 0.13  # a channel's difference from the background, of its range, from which a pixel is of the thing
SMALLEST = 0.01  # of the picture: what is smaller is no thing
WINDOW = 24  # pixels along the side of the window in which things are compared
FILLED = 0.3  # of the window's area that every thing is scaled to cover
TURNS = 24
RINGS = 10  # around the middle of a window, for a first look that no turn changes
SHORTLIST = 12  # things that are compared in every turn
DRAWN = 40  # pixels along the side of a thing's drawing
MASK_WEIGHT = 0.6  # of outlines beside colours
NEAR = 0.05  # of the picture's side: the last frame is where the course leads
ALONE = 3  # pixels around the thing that are not counted as background


@dataclass(frozen=True)
class FilmVerdict:
    """What was seen in a film.

    Attributes:
        right_frames: in which frames the thing is what it is to be: a shape in its colour, or an object.
        found: the share of frames in which there is anything.
        step: how far the middle goes from frame to frame, in picture sides.
        change: the mean change from frame to frame of pixels where the thing never is, of 255.
        drift: the mean difference there between the background and what it is to be, of 255.
        on_course: whether the last frame continues the course of those before; None where that cannot be told.
    """

    right_frames: tuple[bool, ...]
    found: float
    step: float
    change: float
    drift: float
    on_course: bool | None

    @property
    def right(self) -> float:
        """The share of frames in which the thing is right."""
        return sum(self.right_frames) / len(self.right_frames)


def judge_film(frames: Array, film: Film) -> FilmVerdict:
    """Judge frames [T, size, size, 3] in [-1, 1] of a film that was to show a thing before a background."""
    pictures = np.clip((frames + 1) / 2, 0, 1).astype(np.float32)
    behind = ground(film.ground, pictures.shape[1])
    masks = [thing_mask(picture, behind) for picture in pictures]
    middles = np.array([middle(mask) for mask in masks])  # [T, 2], NaN where nothing is
    names = [nearest(p, mask, film.thing) if mask.any() else None for p, mask in zip(pictures, masks, strict=True)]
    steps = np.hypot(*np.diff(middles, axis=0).T) / pictures.shape[1]
    away = ~binary_dilation(np.any(masks, axis=0), iterations=ALONE)
    change = np.abs(np.diff(pictures, axis=0))[:, away] if away.any() else np.zeros(1)
    drift = np.abs(pictures[:, away] - behind[away]) if away.any() else np.zeros(1)
    return FilmVerdict(
        right_frames=tuple(name is not None and same_thing(name, film.thing) for name in names),
        found=float(np.mean([mask.any() for mask in masks])),
        step=float(np.nanmean(steps)) if np.isfinite(steps).any() else 0.0,
        change=255 * float(change.mean()),
        drift=255 * float(drift.mean()),
        on_course=on_course(middles / pictures.shape[1], film.course.side / 2),
    )


@dataclass(frozen=True)
class FilmTable:
    """The verdicts of many films as one row of a table.

    Attributes:
        right: the share of frames whose thing is right.
        right_of_films: that of each film.
        right_by_frame: that of all first frames, of all second ones, and so on.
        correlation: the rank correlation of what the motion numbers ask for and how far middles go; NaN for stills.
        change, drift: means over films, of 255.
        on_course: the share of films, of those where it can be told.
    """

    films: int
    right: float
    right_of_films: tuple[float, ...]
    right_by_frame: tuple[float, ...]
    found: float
    correlation: float
    change: float
    drift: float
    on_course: float

    @classmethod
    def of(cls, verdicts: list[FilmVerdict], films: list[Film]) -> FilmTable:
        asked, steps = [film.course.step for film in films], [verdict.step for verdict in verdicts]
        told = [verdict.on_course for verdict in verdicts if verdict.on_course is not None]
        varied = len(set(steps)) > 1 and len(set(asked)) > 1
        return cls(
            films=len(films),
            right=float(np.mean([verdict.right for verdict in verdicts])),
            right_of_films=tuple(verdict.right for verdict in verdicts),
            right_by_frame=tuple(np.mean([verdict.right_frames for verdict in verdicts], axis=0).tolist()),
            found=float(np.mean([verdict.found for verdict in verdicts])),
            correlation=float(spearmanr(asked, steps).statistic) if varied else float("nan"),
            change=float(np.mean([verdict.change for verdict in verdicts])),
            drift=float(np.mean([verdict.drift for verdict in verdicts])),
            on_course=float(np.mean(told)) if told else float("nan"),
        )


def thing_mask(picture: Array, behind: Array) -> Mask:
    """Where a thing stands before a background, both [H, W, 3] in [0, 1]: the largest part that differs, [H, W]."""
    differs = binary_opening(np.abs(picture - behind).max(-1) > SEEN)
    parts, count = label(binary_fill_holes(differs))
    if not count:
        return np.zeros(picture.shape[:2], bool)
    sizes = np.bincount(parts.ravel())[1:]
    largest = int(np.argmax(sizes))
    if sizes[largest] < SMALLEST * parts.size:
        return np.zeros(picture.shape[:2], bool)
    return np.asarray((parts == largest + 1) & differs)


def middle(mask: Mask) -> NDArray[np.float64]:
    """The centre (x, y) of a mask, with its holes, in pixels; NaN for an empty one."""
    if not mask.any():
        return np.full(2, np.nan)
    rows, columns = np.nonzero(binary_fill_holes(mask))
    return np.array([columns.mean() + 0.5, rows.mean() + 0.5])


def nearest(picture: Array, mask: Mask, thing: Thing) -> Thing:
    """What a mask covers: the nearest, in any turn, of all that could be taken for a thing.

    The inside of what has holes is its own, or the background seen through: whichever is nearer to a thing.
    """
    solid = np.asarray(binary_fill_holes(mask))
    x, y = middle(mask)
    views = [window_of(np.concatenate([picture * part[..., None], part[..., None]], -1), x, y, float(solid.sum()))
             for part in (mask, solid)]  # fmt: skip
    candidates = rivals(thing)
    far = np.abs(np.stack([rings(view) for view in views])[:, None] - ring_bank(thing)).mean((2, 3)).min(0)
    shortlist = [candidates[i] for i in np.argsort(far, kind="stable")[:SHORTLIST]]
    bank = np.stack([turned(rival) for rival in shortlist])
    distances = np.min([np.abs(bank - view).mean((2, 3, 4)).min(1) for view in views], axis=0)
    return shortlist[int(np.argmin(distances))]


def window_of(layers: Array, x: float, y: float, area: float) -> Array:
    """A thing with its middle in a window [WINDOW, WINDOW, 4], scaled so that it covers FILLED of it, as compared."""
    half = 0.5 * np.sqrt(max(area, 1.0) / FILLED)
    axis = (np.arange(WINDOW) + 0.5) / WINDOW * 2 - 1
    window = _sampled(layers.astype(np.float32), y + axis * half - 0.5, x + axis * half - 0.5)
    window[..., 3] *= MASK_WEIGHT
    return window


def _sampled(layers: Array, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> Array:
    """Bilinear values at the crossings of rows and columns, 0 outside; [len(rows), len(columns), C]."""
    padded = np.pad(layers, ((1, 1), (1, 1), (0, 0)))
    height, width = padded.shape[:2]
    y, x = np.clip(rows + 1, 0, height - 1.001), np.clip(columns + 1, 0, width - 1.001)
    top, left = y.astype(int), x.astype(int)
    dy, dx = (y - top)[:, None, None], (x - left)[None, :, None]
    upper = padded[top][:, left] * (1 - dx) + padded[top][:, left + 1] * dx
    lower = padded[top + 1][:, left] * (1 - dx) + padded[top + 1][:, left + 1] * dx
    return np.asarray(upper * (1 - dy) + lower * dy, np.float32)


def rings(window: Array) -> Array:
    """What a window looks like whichever way it is turned: the mean of each ring around its middle, [RINGS, 4]."""
    axis = (np.arange(WINDOW) + 0.5) / WINDOW * 2 - 1
    ring = np.minimum(np.hypot(*np.meshgrid(axis, axis)) * RINGS, RINGS - 1).astype(int).ravel()
    counts = np.bincount(ring, minlength=RINGS)[:, None]
    flat = window.reshape(-1, window.shape[-1])
    sums = [np.bincount(ring, weights=flat[:, channel], minlength=RINGS) for channel in range(flat.shape[1])]
    return np.asarray(np.stack(sums, 1) / counts, np.float32)


@lru_cache(maxsize=1000)
def rivals(thing: Thing) -> list[Thing]:
    """All that could be taken for a thing: objects, shapes in its colour and texture, its shape in other looks."""
    colour, texture = thing.colour or "red", thing.texture or "plain"
    looks = {(name, colour, texture) for name in SHAPES}
    if thing.is_shape:
        looks |= {(thing.name, other, filling) for other in COLOURS for filling in TEXTURES}
    kept = sorted(look for look in looks if (look[0], look[2]) not in KEPT_OUT)
    return [*(Thing(name) for name in objects()), *(Thing(name, None, None, c, t) for name, c, t in kept)]


@lru_cache(maxsize=1000)
def ring_bank(thing: Thing) -> Array:
    """The rings of all rivals of a thing, [rivals, RINGS, 4]."""
    return np.stack([rings(upright(rival)) for rival in rivals(thing)])


@lru_cache(maxsize=2000)
def upright(thing: Thing) -> Array:
    """A thing in its window, not turned."""
    return _view(_small(thing))


@lru_cache(maxsize=500)
def turned(thing: Thing) -> Array:
    """A thing in its window in every turn, [TURNS, WINDOW, WINDOW, 4]."""
    drawn = _small(thing)
    return np.stack([_view(rotate(drawn, 360 / TURNS * number, reshape=True, order=1)) for number in range(TURNS)])


def _small(thing: Thing) -> Array:
    return np.asarray(layer(thing, 2 * DRAWN, 4 * DRAWN)[::2, ::2], np.float32)


def _view(drawn: Array) -> Array:
    mask = np.asarray(drawn[..., 3] > 0.5)
    x, y = middle(mask)
    return window_of(drawn, x, y, float(binary_fill_holes(mask).sum()))


def same_thing(seen: Thing, asked: Thing) -> bool:
    """Whether a shape has the right outline and colour, or an object is the right one."""
    return (seen.name, seen.colour) == (asked.name, asked.colour)


def on_course(middles: NDArray[np.float64], margin: float) -> bool | None:
    """Whether the last of the middles [T, 2], in picture sides, is where the course of those before leads.

    It goes on as it came, or bounces off an edge. None where fewer than two of the three last are known.
    """
    if len(middles) < 3 or not np.isfinite(middles[-3:]).all():
        return None
    expected = [bounced(np.array([2 * middles[-2, axis] - middles[-3, axis]]), margin)[0] for axis in (0, 1)]
    straight = 2 * middles[-2] - middles[-3]
    errors = [np.hypot(*(np.asarray(place) - middles[-1])) for place in (expected, straight)]
    return bool(min(errors) <= NEAR)

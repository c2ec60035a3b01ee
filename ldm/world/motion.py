"""How a thing moves in a film of the world: along a straight course, off the picture's edges, turning or growing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Draws = NDArray[np.float64]

FASTEST = 32 / 64  # picture sides a second, where the motion number is the largest
MOST_MOTION = 255.0
RATES = (4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0)  # frames a second
TURN = 150.0  # degrees a second at the largest motion number
GROWTH = 0.35  # logarithm of the growth a second at the largest motion number
SIDES = (0.36, 0.5)  # of a thing, in picture sides, from the smallest to the largest
MANNERS = ("move", "turn", "grow", "shrink")
MANNER_SHARES = (0.4, 0.3, 0.15, 0.15)
STILL = 0.06  # share of films in which nothing moves
DRAWN = 10  # draws a course


class Pose(NamedTuple):
    """Where a thing is in each frame: its middle x and y and its side, all in picture sides, and its turn in degrees.

    All [T] float32.
    """

    x: Array
    y: Array
    side: Array
    turn: Array


@dataclass(frozen=True)
class Course:
    """What a film shows of a thing.

    Attributes:
        x, y: where its middle is in the first frame, in picture sides from the top left.
        side: how large its box is there.
        heading: which way it goes, in degrees clockwise from the right.
        motion: how fast all that it does is, 0 to 255; the middle covers FASTEST sides a second at 255.
        fps: frames a second.
        manner: "move", or besides that "turn", "grow" or "shrink".
        clockwise: which way it turns.
    """

    x: float
    y: float
    side: float
    heading: float
    motion: float
    fps: float
    manner: str = "move"
    clockwise: bool = True

    @property
    def step(self) -> float:
        """Picture sides from frame to frame."""
        return self.motion / MOST_MOTION * FASTEST / self.fps

    def path(self, frames: int) -> Array:
        """``poses`` as a film model takes them: x, y, turn and the logarithm of the growth, [frames, 4] float32."""
        poses = self.poses(frames)
        return np.stack([poses.x, poses.y, poses.turn, np.log(poses.side / poses.side[0])], axis=1)

    def poses(self, frames: int) -> Pose:
        """Where it is in each of so many frames; it bounces off the picture's edges."""
        seconds = np.arange(frames) / self.fps
        share = self.motion / MOST_MOTION
        growth = {"grow": 1.0, "shrink": -1.0}.get(self.manner, 0.0) * GROWTH * share * seconds
        side = np.clip(self.side * np.exp(growth), 0.6 * SIDES[0], 1.2 * SIDES[1])
        turn = TURN * share * seconds * (1 if self.clockwise else -1) * (self.manner == "turn")
        path = np.arange(frames) * self.step
        angle = math.radians(self.heading)
        x = bounced(self.x + path * math.cos(angle), self.side / 2)
        y = bounced(self.y + path * math.sin(angle), self.side / 2)
        return Pose(*(np.asarray(values, np.float32) for values in (x, y, side, turn + 0 * x)))


def bounced(straight: NDArray[np.floating[Any]], margin: float) -> NDArray[np.floating[Any]]:
    """Places on a line folded back and forth between ``margin`` and 1 - ``margin``."""
    room = 1 - 2 * margin
    along = np.mod(straight - margin, 2 * room)
    return margin + np.minimum(along, 2 * room - along)


def draw_course(row: Draws) -> Course:
    """The course of a row of draws in [0, 1)."""
    side = SIDES[0] + row[0] * (SIDES[1] - SIDES[0])
    room = 1 - side
    manner = MANNERS[int(np.searchsorted(np.cumsum(MANNER_SHARES), row[5], side="right").clip(0, len(MANNERS) - 1))]
    return Course(
        x=side / 2 + row[1] * room,
        y=side / 2 + row[2] * room,
        side=side,
        heading=360 * row[3],
        motion=0.0 if row[8] < STILL else MOST_MOTION * row[4],
        fps=RATES[int(row[6] * len(RATES))],
        manner=manner,
        clockwise=bool(row[7] < 0.5),
    )

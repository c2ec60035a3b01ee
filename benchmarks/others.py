"""What becomes of the rest: prompts of the world that have nothing to do with what was learned, and their pictures.

Each picture is judged twice: by ``ldm.world.judge``, which has learned nothing and asks how far off a colour is, and by
the scorer that ships, which asks for its name. With the same prompts and noise before and after a training, pictures
can be compared one by one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.manner_judge import manner_distances
from benchmarks.manners import PLAIN
from ldm.pictures.images import image_to_array, image_to_tensor
from ldm.util import atomic_write
from ldm.world.judge import judge
from ldm.world.scene import Scene
from ldm.world.scoring import mistakes
from scripts.scene_prompts import prompts
from scripts.score import load_scorer, see_each

Draw = Callable[[Sequence[str], int], list[Image.Image]]  # one picture for each prompt, from a seed

PROMPTS_SEED = 7


@dataclass(frozen=True)
class Other:
    """What is said of one prompt's picture."""

    prompt: str
    right: bool  # all of the following five, by the judge
    ground: bool
    things: bool
    colours: bool
    place: bool
    outline: bool
    named: bool  # all of it, by the scorer
    plain: bool  # the nearest manner is the world's own
    ground_error: float  # CIEDE2000 against the true render
    thing_error: float


@dataclass(frozen=True)
class Count:
    """Of so many pictures: how many are right by the judge, by the judge but for colours, by the scorer, and plain."""

    pictures: int = 0
    right: int = 0
    drawn: int = 0
    named: int = 0
    plain: int = 0

    @classmethod
    def of(cls, others: Sequence[Other]) -> Count:
        drawn = sum(one.ground and one.things and one.place and one.outline for one in others)
        right, named, plain = (sum(getattr(one, name) for one in others) for name in ("right", "named", "plain"))
        return cls(len(others), right, drawn, named, plain)


def judged(draw: Draw, count: int) -> list[Other]:
    """The verdicts on pictures of so many prompts that are held out from the world's training."""
    if not count:
        return []
    texts, scenes = prompts(count, seed=PROMPTS_SEED)
    pictures = draw(texts, 0)
    wrong = {one["picture"] for one in mistakes(
        [str(i) for i in range(count)], scenes, see_each(load_scorer(), [image_to_tensor(one) for one in pictures])
    )}  # fmt: skip
    return [_judged(text, image_to_array(picture), scene, str(number) not in wrong)
            for number, (text, picture, scene) in enumerate(zip(texts, pictures, scenes, strict=True))]  # fmt: skip


def _judged(text: str, picture: NDArray[np.float32], scene: Scene, named: bool) -> Other:
    verdict = judge(picture, scene)
    return Other(
        prompt=text, right=verdict.right, ground=verdict.ground, things=verdict.things, colours=verdict.colours,
        place=verdict.place, outline=verdict.outline, named=named, plain=is_plain(picture, verdict.true),
        ground_error=verdict.ground_error, thing_error=verdict.thing_error,
    )  # fmt: skip


def is_plain(picture: NDArray[np.float32], scene: Scene) -> bool:
    """Whether a picture of a complete scene is in the world's own manner rather than in another."""
    distances = manner_distances(picture, scene)
    return min(distances, key=lambda name: distances[name]) == PLAIN


def write(others: Sequence[Other], path: Path) -> None:
    """The verdicts, in the prompts' order, as a list in JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part:
        part.write_text(json.dumps([asdict(one) for one in others], indent=1) + "\n")


def read(path: Path) -> list[Other]:
    """What ``write`` wrote."""
    return [Other(**one) for one in json.loads(path.read_text())]

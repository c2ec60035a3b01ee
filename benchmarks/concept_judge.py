"""A judge of pictures of concepts that the world lacks: classical measures against true pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from skimage.color import deltaE_ciede2000

from benchmarks.concepts import CONCEPTS, Shown, picture_of, relatives, sprite
from ldm.world.grounds import CELL
from ldm.world.judge import SEEN, candidates, ground_lab, nearest_ground, nearest_layer, to_lab
from ldm.world.paint import box, layer
from ldm.world.scene import COLOURS, SHAPES, Thing

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Finding:
    """What was found on one picture."""

    name: str  # what stands there: a concept or a relative, an object, a shape with its colour and texture
    concept: bool  # whether that is what was asked for
    ground: bool
    overlap: float  # intersection over union with the true silhouette
    beyond: float  # how far all that is a cell or more away from that is off, CIEDE2000

    @property
    def noted(self) -> dict[str, bool | float]:
        """What a table has of it, by the names of its columns."""
        return {"recognised": self.concept, "background": self.ground, "silhouette": self.overlap,
                "beyond it off by": self.beyond}  # fmt: skip


def judge_concept(picture: Array, asked: Shown) -> Finding:
    """Judge a picture [size, size, 3] in [-1, 1] of which a concept before a background was asked for.

    Raises:
        UserError: a concept or a size that there is not.
    """
    lab, size = to_lab(picture), len(picture)
    true, empty = to_lab(picture_of(asked, size)), ground_lab(asked.ground, size)
    found, wanted = (deltaE_ciede2000(one, empty) > SEEN for one in (lab, true))
    beyond = ~binary_dilation(wanted, iterations=CELL)
    rivals = dict(_rivals(asked.size, size))
    number = nearest_layer(lab, asked.ground, box(asked.size, "middle", size), list(rivals.values()))
    name = list(rivals)[number]
    return Finding(
        name=name,
        concept=name == asked.concept,
        ground=nearest_ground(lab) == asked.ground,
        overlap=float((found & wanted).sum() / (found | wanted).sum()),
        beyond=float(deltaE_ciede2000(lab, true)[beyond].mean()),
    )


def _rivals(size_name: str, size: int) -> Iterator[tuple[str, Array]]:
    """All that could stand there: the concepts, their relatives, all objects, all shapes in all colours, and circles
    in all textures too."""
    side = box(size_name, "middle", size)[2]
    for name in (*CONCEPTS, *relatives()):
        yield name, sprite(name, side)
    for thing in _things(size_name):
        name = f"{thing.colour} {thing.texture} {thing.name}" if thing.is_shape else thing.name
        yield name, layer(thing, side, size)


@cache
def _things(size_name: str) -> tuple[Thing, ...]:
    plain = (Thing(name, size_name, "middle", colour, "plain") for name, colour in product(SHAPES, COLOURS))
    alike = candidates(Thing("circle", size_name, "middle", "purple", "plain"))
    return tuple(dict.fromkeys((*alike, *plain)))

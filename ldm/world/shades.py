"""Whether a picture has the shades of what a classifier sees on it: it names colours, but not an object's own.

As the judge (``ldm.world.judge``) it compares mean colours with those of a true render. But that is of what the
classifier sees, not of what was asked for, and a thing is where the picture shows it, too, not wherever it should be.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_fill_holes
from skimage.color import deltaE_ciede2000

from ldm.world.judge import OVERLAP, SEEN, SHIFT, ground_lab, mean_shift, overlap_of, parts_of, to_lab
from ldm.world.labels import Labels, scene_seen
from ldm.world.paint import paint
from ldm.world.scene import Scene

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

RIM = 2  # pixels around things that count for nothing: their soft edges and outlines are no background


def has_its_shades(picture: Array, seen: Labels) -> bool:
    """Whether background and things of a picture [size, size, 3] in [-1, 1] have the shades of what is seen there.

    The outline that a thing of its background's shade has is a part of what is seen.

    Raises:
        UserError: a size that scenes do not have.
    """
    scene = scene_seen(seen)
    return scene is not None and shown_share(picture, scene) >= OVERLAP and max(shifts(picture, scene)) <= SHIFT


def shifts(picture: Array, scene: Scene) -> tuple[float, ...]:
    """CIEDE2000 between the mean colours of a picture and of a scene, of the background and of each thing.

    Both means are over the same pixels: where both show the thing, with what lies inside of that and has the colour of
    the background, or where neither does; infinite where there are none.
    """
    lab, true = to_lab(picture), to_lab(paint([scene], len(picture))[0])
    found, wanted = _standing_out(lab, scene), _standing_out(true, scene)
    things = [np.asarray(binary_fill_holes(both)) for both in parts_of(scene, found & wanted)]
    parts = [~binary_dilation(found | wanted, iterations=RIM), *things]
    return tuple(mean_shift(lab, true, part) if part.any() else math.inf for part in parts)


def shown_share(picture: Array, scene: Scene) -> float:
    """How far what stands out from the background is the same in a picture and a scene: intersection over union."""
    true = to_lab(paint([scene], len(picture))[0])
    return overlap_of(_standing_out(to_lab(picture), scene), _standing_out(true, scene))


def _standing_out(lab: Array, scene: Scene) -> Mask:
    return np.asarray(deltaE_ciede2000(lab, ground_lab(str(scene.ground), len(lab))) > SEEN)

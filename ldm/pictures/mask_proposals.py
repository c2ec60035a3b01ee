"""Masks proposed from a few marks on a picture: by colours and a minimum cut, or by a SAM-family network."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ldm.util import MissingPartError, UserError

Point = tuple[float, float]
Array = NDArray[np.float64]

SEGMENTS = 2000  # patches of like colour that are decided on as a whole
COLOURS = 24  # in which a picture is described
ROUNDS = 6  # of learning colours from the current mask and cutting again
SMOOTHNESS = 6.0  # how much a border between like colours costs, against not fitting the colours
POINT = 1 / 80  # radius of what a point stands for, against the longer side
UNITS = 1000  # of the whole-number capacities that the cut needs


@dataclass(frozen=True)
class Marks:
    """What a person says about a picture, in pixels of it.

    Attributes:
        box: (left, top, right, bottom): nothing outside belongs.
        inside, outside: points (x, y) that belong, and that do not.
        strokes: [H, W] with 1 where it belongs, 0 where it does not, NaN where nothing is said.
    """

    box: tuple[float, float, float, float] | None = None
    inside: Sequence[Point] = ()
    outside: Sequence[Point] = ()
    strokes: Array | None = field(default=None, compare=False)

    def check(self, width: int, height: int) -> None:
        """Refuse marks that say nothing, or lie outside a picture of that size.

        Raises:
            UserError: see there.
        """
        if self.box is None and not self.inside and self.strokes is None:
            raise UserError("a proposal needs a box, points or strokes that say what is meant")
        for x, y in (*self.inside, *self.outside):
            if not (0 <= x < width and 0 <= y < height):
                raise UserError(f"the point {x:g},{y:g} lies outside the picture of {width}x{height} pixels")
        if self.box is not None:
            left, top, right, bottom = self.box
            if not (0 <= left < right <= width and 0 <= top < bottom <= height):
                raise UserError(
                    f"the box {left:g},{top:g},{right:g},{bottom:g} does not lie in the picture of {width}x{height} "
                    "pixels; it should be left,top,right,bottom"
                )
        if self.strokes is not None and self.strokes.shape != (height, width):
            raise UserError(
                f"the strokes have {self.strokes.shape[1]}x{self.strokes.shape[0]} pixels, the picture {width}x{height}"
            )

    def known(self, width: int, height: int) -> Array:
        """[H, W]: 1 what belongs, 0 what does not, NaN what is to be found."""
        known = np.full((height, width), np.nan) if self.strokes is None else self.strokes.copy()
        if self.box is not None:
            left, top, right, bottom = (round(value) for value in self.box)
            outside = np.ones((height, width), bool)
            outside[top:bottom, left:right] = False
            known[outside] = 0
        rows, columns = np.mgrid[:height, :width] + 0.5
        for points, value in ((self.inside, 1.0), (self.outside, 0.0)):
            for x, y in points:
                known[(rows - y) ** 2 + (columns - x) ** 2 <= max(1.0, POINT * max(width, height)) ** 2] = value
        return known


def propose(image: Image.Image, marks: Marks) -> Tensor:
    """A mask [H, W] of 0 and 1 for what the marks mean, by its colours.

    As GrabCut (Rother et al. 2004), on patches instead of pixels: learn which colours are in and out, cut the graph of
    neighbouring patches where that and their likeness cost least, and again. A box alone is enough.

    Raises:
        UserError: marks that do not fit the picture, or leave nothing inside or nothing outside.
    """
    from skimage.color import rgb2lab
    from skimage.segmentation import slic

    marks.check(image.width, image.height)
    known = marks.known(image.width, image.height)
    if not (known == 0).any():
        raise UserError("the marks leave nothing outside: draw a smaller box, or say what does not belong")
    rgb = np.asarray(image.convert("RGB"))
    lab = rgb2lab(rgb)
    labels = slic(rgb, n_segments=SEGMENTS, compactness=10.0, start_label=0, channel_axis=-1)
    count = int(labels.max()) + 1
    seeds = _seeds(labels, known, count)
    colours = _colours(lab, labels, count)
    edges, likeness = _neighbours(labels, lab, count)
    inside, outside = seeds != 0, seeds == 0
    if marks.box is None and (seeds == 1).any():
        inside = seeds == 1  # without a box most of what is open does not belong
    for _ in range(ROUNDS):
        cut = _cut(_costs(colours, inside, outside, seeds), edges, likeness, count)
        if (cut == inside).all():
            break
        inside, outside = cut, ~cut
    if not inside.any():
        raise UserError("nothing was found that differs from what lies outside; add strokes or points")
    return torch.from_numpy(inside[labels].astype(np.float32))


def _seeds(labels: NDArray[np.int64], known: Array, count: int) -> Array:
    """What is known of each patch: 1 if a mark says it belongs, 0 if most of it is said not to, else NaN."""
    flat = labels.ravel()
    size = np.bincount(flat, minlength=count)
    belongs = np.bincount(flat, (known == 1).ravel(), count)
    not_so = np.bincount(flat, (known == 0).ravel(), count)
    marked_out = (not_so > size / 2) | ((not_so > 0) & (belongs == 0) & (not_so < 0.05 * size))
    seeds = np.full(count, np.nan)
    seeds[marked_out] = 0
    seeds[(belongs > 0) & (belongs >= not_so)] = 1
    return seeds


def _colours(lab: Array, labels: NDArray[np.int64], count: int) -> Array:
    """[patches, COLOURS]: how many pixels of each patch have each of the picture's main colours."""
    from scipy.cluster.vq import kmeans2, vq

    pixels = lab.reshape(-1, 3)
    sample = pixels[:: max(1, len(pixels) // 20_000)]
    centres = np.unique(sample, axis=0)
    if len(centres) > COLOURS:
        centres, _ = kmeans2(sample, COLOURS, minit="++", seed=0)
    nearest, _ = vq(pixels, centres)
    table = np.bincount(labels.ravel() * COLOURS + nearest, minlength=count * COLOURS)
    return table.reshape(count, COLOURS).astype(float)


def _neighbours(labels: NDArray[np.int64], lab: Array, count: int) -> tuple[NDArray[np.int64], Array]:
    """Pairs of touching patches [edges, 2], and what a cut between them costs: border length times likeness."""
    pairs = [
        np.stack([labels[:, :-1].ravel(), labels[:, 1:].ravel()], 1),
        np.stack([labels[:-1].ravel(), labels[1:].ravel()], 1),
    ]
    touching = np.concatenate(pairs)
    touching = np.sort(touching[touching[:, 0] != touching[:, 1]], axis=1)
    edges, length = np.unique(touching, axis=0, return_counts=True)
    size = np.bincount(labels.ravel(), minlength=count)[:, None]
    mean = np.stack([np.bincount(labels.ravel(), lab[..., c].ravel(), count) for c in range(3)], 1) / size
    distance = np.square(mean[edges[:, 0]] - mean[edges[:, 1]]).sum(1)
    return edges, SMOOTHNESS * length * np.exp(-distance / (2 * distance.mean() + 1e-12))


def _costs(colours: Array, inside: NDArray[np.bool_], outside: NDArray[np.bool_], seeds: Array) -> Array:
    """[patches, 2]: what it costs to call a patch outside and inside; -log of how usual its colours are there."""
    costs = np.empty((len(colours), 2))
    for column, part in enumerate((outside, inside)):
        usual = colours[part].sum(0) + 1.0
        costs[:, column] = colours @ -np.log(usual / usual.sum())
    costs[seeds == 1] = [1e9, 0]
    costs[seeds == 0] = [0, 1e9]
    return costs


def _cut(costs: Array, edges: NDArray[np.int64], likeness: Array, count: int) -> NDArray[np.bool_]:
    """The cheapest division of patches into outside and inside: what the source still reaches at maximum flow."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    source, sink = count, count + 1
    patches = np.arange(count)
    costs = np.minimum(costs - costs.min(1, keepdims=True), 1e6)
    tails = np.concatenate([np.full(count, source), patches, edges[:, 0], edges[:, 1]])
    heads = np.concatenate([patches, np.full(count, sink), edges[:, 1], edges[:, 0]])
    capacity = np.concatenate([costs[:, 0], costs[:, 1], likeness, likeness])
    whole = np.minimum(np.round(capacity * UNITS), 2**30).astype(np.int32)
    graph = csr_array((whole, (tails, heads)), shape=(count + 2, count + 2), dtype=np.int32)
    rest = csr_array(graph - maximum_flow(graph, source, sink).flow)
    rest.data[rest.data < 0] = 0
    rest.eliminate_zeros()
    reached = breadth_first_order(rest, source, return_predecessors=False)
    inside = np.zeros(count, bool)
    inside[reached[reached < count]] = True
    return inside


class Sam:
    """A network of the SAM family (Kirillov et al. 2023), read from a local folder.

    Raises:
        UserError: there is no such model in the folder.
        MissingPartError: the model's preparation of pictures needs a package that is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        if not (Path(folder) / "config.json").is_file():
            way = "'python -m scripts.download sam' gets one"
            raise UserError(
                f"there is no SAM model in '{folder}': a folder with config.json and weights is needed; {way}"
            )
        from transformers import AutoModelForMaskGeneration, AutoProcessor

        try:
            self._model: Any = AutoModelForMaskGeneration.from_pretrained(folder, local_files_only=True).eval()
            self._processor: Any = AutoProcessor.from_pretrained(folder, local_files_only=True)
        except ImportError as error:
            what = " ".join(str(error).split())
            raise MissingPartError(f"the model in '{folder}' needs a package: {what}") from error
        except (OSError, ValueError, KeyError) as error:
            what = " ".join(str(error).split())[:200]
            raise UserError(f"cannot read a SAM model in '{folder}': {what}") from error

    def propose(self, image: Image.Image, marks: Marks) -> Tensor:
        """A mask [H, W] of 0 and 1: of those that the network offers, the one that it rates best.

        Raises:
            UserError: strokes (it takes points and a box), or marks that do not fit.
        """
        marks.check(image.width, image.height)
        if marks.strokes is not None:
            raise UserError("a SAM model takes a box and points, no strokes")
        prompts: dict[str, object] = {}
        if marks.box is not None:
            prompts["input_boxes"] = [[list(marks.box)]]
        if marks.inside or marks.outside:
            prompts["input_points"] = [[[list(point) for point in (*marks.inside, *marks.outside)]]]
            prompts["input_labels"] = [[[1] * len(marks.inside) + [0] * len(marks.outside)]]
        inputs = self._processor(images=image.convert("RGB"), return_tensors="pt", **prompts)
        with torch.no_grad():
            output = self._model(**{name: _at_float32(value) for name, value in inputs.items() if name in _TAKEN})
        sizes = [inputs[name] for name in ("original_sizes", "reshaped_input_sizes") if name in inputs]
        masks = self._processor.image_processor.post_process_masks(output.pred_masks, *sizes)[0]
        best = int(output.iou_scores[0, 0].argmax())
        mask: Tensor = masks[0, best].float()
        return mask


def propose_with_sam(image: Image.Image, marks: Marks, folder: str | os.PathLike[str]) -> Tensor:
    """A mask [H, W] of 0 and 1 from the network in a folder.

    Raises:
        UserError, MissingPartError: as ``Sam`` and its ``propose``.
    """
    return Sam(folder).propose(image, marks)


_TAKEN = ("pixel_values", "input_boxes", "input_points", "input_labels")


def _at_float32(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value

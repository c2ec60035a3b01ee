"""A mask for restyling: from a picture of it, or proposed from a few marks on the content.

    python -m scripts.make_mask drawn.png --content photo.jpg --threshold 0.5 --feather 2     # a picture that is a mask
    python -m scripts.make_mask labels.png --label 2 --content photo.jpg --number 0           # one label of several
    python -m scripts.make_mask photo.jpg --box 40,10,300,380                                 # what is in a box
    python -m scripts.make_mask photo.jpg --points 120,80 150,200 --not_points 10,10          # what points are on
    python -m scripts.make_mask photo.jpg --strokes strokes.png --number 1                    # white: in, black: out
    python -m scripts.make_mask photo.jpg --box 40,10,300,380 --sam models/sam-vit-base       # the same by a network

The result lies beside the content as <content>_mask.npy (with --number 1: <content>_mask1.npy), where run_styleid.py
finds it. Without --sam a proposal is made from colours, much as GrabCut does; strokes do best.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ldm.arguments import Parser
from ldm.pictures.images import load_image, save_image
from ldm.pictures.mask_proposals import Marks, Point, propose, propose_with_sam
from ldm.pictures.mask_values import read_strokes
from ldm.pictures.masks import feather, fit_mask, mask_path, read_mask, write_mask
from ldm.util import UserError, run_command

SAME_ASPECT = 0.02


def parse() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("image", type=Path, help="a mask (a picture or .npy); with marks: the content")
    add("--content", type=Path, help="the content that a mask is for: gives its name and size")
    add("--out", "-o", type=Path, help="where to write (.npy or .png), instead of beside the content")
    add("--number", type=int, help="of the style that the mask is for, counted from 0; none: the only one")
    add("--label", help="of a label image, the label that is the mask: a number, 0xRRGGBB for a colour")
    add("--threshold", type=float, metavar="T", help="1 above this brightness (0 to 1), 0 below; none: keep it soft")
    add("--invert", action="store_true", help="the rest of the picture")
    add("--feather", type=float, default=0.0, metavar="R", help="soften the edge by so many pixels")
    add("--box", help="left,top,right,bottom in pixels: nothing outside belongs")
    add("--points", nargs="+", default=[], metavar="X,Y", help="points that belong")
    add("--not_points", nargs="+", default=[], metavar="X,Y", help="points that do not")
    add("--strokes", type=Path, help="a picture of the content's size: white belongs, black does not, all else is open")
    add("--sam", metavar="FOLDER", help="a model of the SAM family on this disk, as transformers saves it")
    add("--preview", type=Path, metavar="FILE", help="also write the content with all but the mask darkened")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args()


def numbers(text: str, count: int, example: str) -> tuple[float, ...]:
    """Numbers between commas.

    Raises:
        UserError: they are no numbers, or not so many.
    """
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != count or not all(np.isfinite(values)):
        raise UserError(f"'{text}' should be {example}")
    return values


def point(text: str) -> Point:
    x, y = numbers(text, 2, "x,y")
    return x, y


def label_number(text: str) -> int:
    """A label as ``read_mask`` takes it.

    Raises:
        UserError: it is neither a whole number nor a colour.
    """
    try:
        return int(text, 0)
    except ValueError:
        raise UserError(f"--label should be a number such as 2, or a colour such as 0xff0000, got '{text}'") from None


def read_marks(options: argparse.Namespace) -> Marks | None:
    """The marks among the options; None without any.

    Raises:
        UserError: they cannot be read.
    """
    if not (options.box or options.points or options.not_points or options.strokes):
        return None
    box = None
    if options.box:
        left, top, right, bottom = numbers(options.box, 4, "left,top,right,bottom")
        box = (left, top, right, bottom)
    strokes = None if options.strokes is None else read_strokes(options.strokes)
    return Marks(box, [point(p) for p in options.points], [point(p) for p in options.not_points], strokes)


def change(mask: Tensor, threshold: float | None, invert: bool, radius: float) -> Tensor:
    """A mask after threshold, inversion and feather, in this order.

    Raises:
        UserError: a threshold outside 0 to 1, a negative radius, or nothing is left.
    """
    if threshold is not None:
        if not 0 <= threshold <= 1:
            raise UserError(f"--threshold must lie between 0 and 1, got {threshold:g}")
        mask = (mask > threshold).float()
    mask = feather(1 - mask if invert else mask, radius)
    if not bool(mask.any()):
        raise UserError("nothing is left of the mask: another threshold, or --invert, would leave something")
    return mask


def fit_to(mask: Tensor, content: Image.Image) -> Tensor:
    """A mask at the size of a content of the same aspect.

    Raises:
        UserError: the aspects differ.
    """
    height, width = mask.shape
    if abs(width / height - content.width / content.height) > SAME_ASPECT * content.width / content.height:
        raise UserError(f"the mask has {width}x{height} pixels, which is another aspect than {content.size} has")
    return fit_mask(mask, (content.height, content.width))


def main() -> None:
    options = parse()
    marks = read_marks(options)
    content = options.image if marks is not None else options.content
    if marks is None:
        if options.sam:
            raise UserError("--sam needs marks on the content: --box or --points")
        mask = read_mask(options.image, label=None if options.label is None else label_number(options.label))
        mask = mask if content is None else fit_to(mask, load_image(content))
    else:
        picture = load_image(content)
        mask = propose_with_sam(picture, marks, options.sam) if options.sam else propose(picture, marks)
    mask = change(mask, options.threshold, options.invert, options.feather)
    path = options.out or (options.image.with_suffix(".npy") if content is None else mask_path(content, options.number))
    if path == options.image:
        raise UserError(f"'{path}' would be written over itself: say where with --out")
    write_mask(mask, path)
    if options.preview is not None:
        if content is None:
            raise UserError("--preview needs the content: add --content")
        save_image(darkened(load_image(content), mask), options.preview)
    print(f"{path}: {mask.shape[1]}x{mask.shape[0]}, {100 * float(mask.mean()):.1f} % takes the style")


def darkened(image: Image.Image, mask: Tensor, left: float = 0.25) -> Image.Image:
    """A picture with what a mask leaves out darkened."""
    pixels = torch.from_numpy(np.asarray(image.convert("RGB"), np.float32))
    return Image.fromarray((pixels * (left + (1 - left) * mask[..., None])).round().to(torch.uint8).numpy())


if __name__ == "__main__":
    run_command(main)

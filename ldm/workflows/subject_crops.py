"""Training pictures of a thing out of photographs of it: squares around it, with or without what lies behind."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from ldm.draws import uniform
from ldm.pictures.images import list_images, load_image, readable_images, save_image
from ldm.pictures.mask_proposals import Marks, Sam
from ldm.pictures.mask_values import read_strokes
from ldm.pictures.masks import feather, find_masks, is_mask_of_another, read_mask, write_mask
from ldm.pictures.opening import SUFFIXES
from ldm.pictures.subjects import GREY, MARGIN, Colour, Square, cut_out, edges, subject_mask
from ldm.util import UserError, atomic_write

log = logging.getLogger(__name__)

NONE, RANDOM = "none", "random"
PAINTS: dict[str, Colour] = {"neutral": GREY, "white": (255, 255, 255), "black": (0, 0, 0)}
FILLS = (NONE, *PAINTS, RANDOM)


@dataclass(frozen=True)
class Cuts:
    """How things are cut out of their pictures.

    Attributes:
        margin: around the thing, as a share of its longer side.
        fill: what is behind the thing afterwards: one of ``FILLS``; ``random`` is a colour for each picture.
        feather: how soft the thing's edge is, in pixels of the photograph.
        strokes: a folder with strokes, each a picture with the name of the one that it is for.
        sam: a folder with a model of the SAM family, asked what is in the box around what was found without it.
        masks: write masks beside squares that are filled, too.
        seed: of random fills.
    """

    margin: float = MARGIN
    fill: str = NONE
    feather: float = 0.0
    strokes: Path | None = None
    sam: str = ""
    masks: bool = False
    seed: int = 0

    def colour(self, number: int) -> Colour | None:
        """What is behind the thing of a picture, by its number; None: what was there."""
        if self.fill == RANDOM:
            red, green, blue = (int(256 * uniform(self.seed, number, name)[0]) for name in ("red", "green", "blue"))
            return red, green, blue
        return PAINTS.get(self.fill)


@dataclass(frozen=True)
class Cropped:
    """A square that was written, and how much of it is the thing."""

    path: Path
    side: int
    share: float


def crop_subjects(folder: Path, outdir: Path, cuts: Cuts | None = None) -> Iterator[Cropped]:
    """Write a square around the thing in each picture of a folder, as PNG; its caption goes along, and its mask.

    The thing is what a mask beside the picture marks, what strokes are on, or what differs from the picture's rim. A
    picture where nothing is found is named and left out. Masks lie beside squares that are not filled, where a training
    learns only what they mark.

    Raises:
        UserError: there are no pictures, a setting cannot be, a file cannot be read or would be written over, or
            nothing was found in any picture.
        MissingPartError: the SAM model needs a package that is not installed.
    """
    cuts = cuts or Cuts()
    if cuts.fill not in FILLS:
        raise UserError(f"there is no fill '{cuts.fill}'; there are: {', '.join(FILLS)}")
    paths = _pictures(folder, outdir, cuts.strokes)
    sam = Sam(cuts.sam) if cuts.sam else None
    made = 0
    for number, path in enumerate(paths):
        image = load_image(path)
        mask = _mask_of(path, image, cuts.strokes, sam)
        if mask is None:
            continue
        square = cut_out(image, feather(mask, cuts.feather), cuts.margin, cuts.colour(number))
        yield _written(square, path, outdir, cuts.fill == NONE or cuts.masks)
        made += 1
    if not made:
        raise UserError(f"in none of the {len(paths)} pictures in '{folder}' a thing was found: draw masks or strokes")


def _written(square: Square, path: Path, outdir: Path, masked: bool) -> Cropped:
    assert square.mask is not None
    place = outdir / f"{path.stem}.png"
    save_image(square.picture, place)
    if masked:
        write_mask(square.mask, outdir / f"{path.stem}_mask.png")
    if path.with_suffix(".txt").is_file():
        with atomic_write(place.with_suffix(".txt")) as temporary:
            temporary.write_bytes(path.with_suffix(".txt").read_bytes())
    return Cropped(place, square.picture.width, float(square.mask.mean()))


def _pictures(folder: Path, outdir: Path, strokes: Path | None) -> list[Path]:
    """The pictures of a folder that can be read; masks and strokes are read, so that a wrong one is said beforehand."""
    listed = list_images(folder)
    if outdir.resolve() == folder.resolve():
        raise UserError(f"'{outdir}' is the folder of the photographs: the squares need another one")
    paths = [path for path, _ in readable_images([p for p in listed if not is_mask_of_another(p, listed)])]
    if not paths:
        raise UserError(f"none of the {len(listed)} pictures in '{folder}' can be read")
    if strokes is not None and not strokes.is_dir():
        raise UserError(f"there is no folder '{strokes}' with strokes")
    names: dict[str, Path] = {}
    for path in paths:
        other = names.setdefault(path.stem, path)
        if other != path:
            raise UserError(f"'{other}' and '{path}' would both become '{path.stem}.png': rename one")
        _check_free(path.stem, outdir)
        masks, size = find_masks(path), load_image(path).size
        if len(masks) > 1:
            raise UserError(f"'{path}' has {len(masks)} masks; one of what is to be learned would be right")
        for mask in masks:
            read_mask(mask, [size[::-1]])
        for drawn in strokes_of(path, strokes):
            Marks(strokes=read_strokes(drawn)).check(*size)
    return paths


def _check_free(stem: str, outdir: Path) -> None:
    """Raises UserError: a file of that name is there; one that stayed would be taken for the new square's."""
    for name in (f"{stem}.png", f"{stem}_mask.png", f"{stem}.txt"):
        if (outdir / name).exists():
            raise UserError(f"'{outdir / name}' is there already, and would be written over")


def strokes_of(path: Path, folder: Path | None) -> list[Path]:
    """The file with a picture's strokes, if there is one."""
    if folder is None:
        return []
    found = [one for one in folder.iterdir() if one.stem == path.stem and one.suffix.lower() in SUFFIXES]
    return sorted(found)[:1]


def _mask_of(path: Path, image: Image.Image, strokes: Path | None, sam: Sam | None) -> Tensor | None:
    """The mask [H, W] of the thing in a picture; None where nothing is found, which is said."""
    beside = find_masks(path)
    if beside:
        return read_mask(beside[0])
    drawn = strokes_of(path, strokes)
    try:
        mask = subject_mask(image, read_strokes(drawn[0]) if drawn else None)
    except UserError as error:
        log.warning("'%s' is left out: %s", path, error)
        return None
    return sam.propose(image, Marks(box=edges(mask))) if sam else mask

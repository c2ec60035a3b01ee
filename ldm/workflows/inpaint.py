"""A part of a picture made anew, or a picture made larger than its frame: what ``scripts/inpaint.py`` does."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from PIL import Image
from torch import Tensor

from ldm.pictures.frame import parse_frame
from ldm.pictures.images import image_to_tensor
from ldm.pictures.mask_values import picture_mask, transparency
from ldm.pictures.masks import feather, find_masks, fit_mask, read_mask
from ldm.pictures.opening import StrPath, read_image
from ldm.pictures.region import Box, box_around
from ldm.util import UserError
from ldm.workflows.basis import Basis
from ldm.workflows.drawing import Made, Task, draw
from ldm.workflows.img2img import Img2ImgOptions, check_init
from ldm.workflows.init_pictures import Fit, InitPicture, PictureLike, init_pictures
from ldm.workflows.plan import check_job, make_plan
from ldm.workflows.request import read_request
from ldm.workflows.studio import Studio, studio_for
from ldm.workflows.watch import Watch

log = logging.getLogger(__name__)

MaskLike: TypeAlias = StrPath | Image.Image | Tensor
PROGRAM = "scripts/inpaint.py"


@dataclass
class InpaintOptions(Img2ImgOptions):
    """What to make of which part of a picture; see ``Img2ImgOptions`` for the rest.

    A picture that has no mask given is filled where it is transparent, or by the mask that lies beside it.
    """

    mask: MaskLike | None = None  # white (1) where something new is wanted; grey values are strengths
    invert_mask: bool = False  # black where something new is wanted
    mask_blur: float = 0.0  # deviation in pixels of the soft edge that the mask gets
    only_masked: int | None = None  # pixels around the masked part, which is painted at full size by itself
    outpaint: str | None = None  # pixels that are added: "64" on all sides, "left=64,top=32"
    strength: float = 1.0
    keep_names: bool = False  # results are <outdir>/<picture>.png and not numbered
    outdir: str = "outputs/inpaint-samples"


def inpaint(options: InpaintOptions, model: Any = None, watch: Watch[Made] | None = None) -> list[Image.Image]:
    """Make the masked part of a picture anew, or of each of a folder, and return the pictures in order.

    Where the mask is 0 each pixel stays the picture's own, at its own size, whatever size the model works at. Models
    that were trained for it see the mask and what is around it; any other is held at the picture there from step to
    step, and where a mask is grey it paints in that share of the last steps. Of a folder, pictures without a mask are
    named and left out.

    With ``only_masked`` the box around the masked part, and as many pixels on each side, is worked on alone, at the
    size of the training (or ``height`` and ``width``), and put back: a small part of a large picture gets all the
    detail that the model has.

    Args:
        options: see ``InpaintOptions``.
        model: a ``Studio``, or a LatentDiffusion; None opens what the options name.
        watch: is told of steps and pictures, and may end the request: then the pictures so far are returned.

    Raises:
        UserError: as ``img2img``; or there is no mask, or it has another size than its picture.
    """
    check_init(options)
    check_masks(options)
    request = read_request(options)
    studio = studio_for(options, model)
    if studio.model.needs:
        check_job(studio, PROGRAM)
    fit = Fit.of(studio, options)
    tasks = (_task(options, studio, *one, fit) for one in masked_pictures(options))
    return draw(options, request, studio, tasks, watch or Watch())


def check_masks(options: InpaintOptions) -> None:
    """Read the frame and, of a picture alone, the mask, before a model is loaded.

    Raises:
        UserError: as ``inpaint``.
    """
    parse_frame(options.outpaint)
    if not options.mask_blur >= 0:
        raise UserError(f"--mask_blur must not be negative, got {options.mask_blur}")
    if options.only_masked is not None and options.only_masked < 0:
        raise UserError(f"--only_masked must not be negative, got {options.only_masked}; 32 is usual")
    if options.only_masked is not None and options.longest is not None:
        raise UserError("--only_masked works at --H and --W, or at the size of the training; leave --longest out")
    if next(masked_pictures(options), None) is None:
        raise UserError(f"no picture in '{options.init_img}' has a mask: '<picture>_mask.png' beside each would do")


def masked_pictures(options: InpaintOptions) -> Iterator[tuple[InitPicture, Tensor]]:
    """The pictures in their frames, each with its mask [H, W] in [0, 1], at their own size.

    Raises:
        UserError: it has no mask, or one of another size; of a folder's such pictures it is said instead.
    """
    frame = parse_frame(options.outpaint)
    for init in init_pictures(options.init_img):
        try:
            mask = _mask_of(init, options, optional=frame is not None)
        except UserError as error:
            if not init.prefix:
                raise
            log.warning("left out: %s", error)
            continue
        if mask is not None and options.invert_mask:
            mask = 1 - mask
        if mask is not None and frame is None and not bool(mask.any()):
            raise UserError("the mask is empty: nothing in it says where something new is wanted")
        if mask is not None and options.mask_blur:
            mask = feather(mask, options.mask_blur)
        if frame is not None:
            yield replace(init, image=frame.around(init.image)), frame.mask(init.image.size, mask)
        elif mask is not None:
            yield init, mask


@functools.cache
def _tell(picture: str, mask: str) -> None:
    """Said once, however often it is looked for."""
    log.info("'%s' is filled by the mask beside it, '%s'", picture, mask)


def _mask_of(init: InitPicture, options: InpaintOptions, optional: bool) -> Tensor | None:
    """The mask of a picture: the one given, the one beside it, or where it is transparent."""
    size = (init.image.height, init.image.width)
    given = options.mask
    if given is None and init.path is not None:
        given = next(iter(find_masks(init.path)), None)
        if given is not None:
            _tell(init.name, given.name)
    if given is None:
        mask = _transparent(init.path or options.init_img)
    elif isinstance(given, Image.Image | Tensor):
        mask = given.float() if isinstance(given, Tensor) else torch.from_numpy(picture_mask(given, Path("mask")))
        if tuple(mask.shape) != size:
            raise UserError(f"the mask is {list(mask.shape)}, its picture needs [{size[0]}, {size[1]}]")
    else:
        mask = read_mask(given, [size])
    if mask is None and not optional:
        raise UserError(
            f"'{init.name}' has no mask: --mask FILE (white where something new is wanted), a file "
            "'<picture>_mask.png' beside it, a transparent part, or --outpaint would do"
        )
    return mask


def _transparent(picture: PictureLike | None) -> Tensor | None:
    """Where a picture is transparent, [H, W]; None where it is nowhere so."""
    assert picture is not None
    alpha = transparency(picture if isinstance(picture, Image.Image) else read_image(picture))
    return None if alpha is None else 1 - torch.from_numpy(alpha)


def _task(options: InpaintOptions, studio: Studio, init: InitPicture, mask: Tensor, fit: Fit) -> Task:
    padding = options.only_masked
    part = _whole(init.image, mask, fit) if padding is None else _around(padding, init.image, mask, fit)
    picture, area = image_to_tensor(part.image)[None], part.mask[None, None]
    given = {"image": picture, "mask": (area >= 0.5).float()} if studio.model.needs else {}
    basis = Basis(
        picture, options.strength, area, given, original=part.original, box=part.box, about=_about(options, init)
    )  # fmt: skip
    plan = make_plan(replace(options, height=part.image.height, width=part.image.width), studio, given)
    named = init.path if options.keep_names else None
    place = None if named is None else Path(options.outdir) / f"{named.stem}.png"
    return Task(plan, basis, init.prefix, place)


@dataclass(frozen=True)
class _Part:
    """What is worked on, a picture and its mask [H, W] at that size; where it belongs, as ``Basis`` has it."""

    image: Image.Image
    mask: Tensor
    original: tuple[Image.Image, Tensor]
    box: Box | None = None


def _whole(image: Image.Image, mask: Tensor, fit: Fit) -> _Part:
    fitted = fit(image)
    small = fit_mask(mask, (fitted.height, fitted.width), fit.cuts, most=True)
    return _Part(fitted, small, (fitted, small) if fit.cuts else (image, mask))


def _around(padding: int, image: Image.Image, mask: Tensor, fit: Fit) -> _Part:
    left, top, right, bottom = box = box_around(mask, padding, fit.target[0] / fit.target[1])
    fitted = fit.part(image.crop(box))
    small = fit_mask(mask[top:bottom, left:right], (fitted.height, fitted.width), most=True)
    return _Part(fitted, small, (image, mask), box)


def _about(options: InpaintOptions, init: InitPicture) -> dict[str, Any]:
    """What records say of the picture and its mask."""
    mask = str(options.mask) if isinstance(options.mask, str | os.PathLike) else None
    others = {"mask": mask, "mask_blur": options.mask_blur, "outpaint": options.outpaint}
    given = {name: value for name, value in others.items() if value}
    if options.only_masked is not None:
        given["only_masked"] = options.only_masked
    return {"init_img": init.name, "strength": options.strength, **given}

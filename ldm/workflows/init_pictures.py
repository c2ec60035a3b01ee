"""The pictures that a request begins from: where they come from, and the size at which a model works on them."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image

from ldm.pictures.images import centre_crop, check_size, fit_image, fit_size, load_image, readable_images, to_rgb
from ldm.pictures.masks import short_name
from ldm.pictures.opening import StrPath, check_image
from ldm.util import UserError
from ldm.workflows.plan import usual_settings
from ldm.workflows.restyle.pairs import pictures_at
from ldm.workflows.studio import Studio

log = logging.getLogger(__name__)

PictureLike: TypeAlias = StrPath | Image.Image
MOST = 4  # times the pixels of the training: a picture that has more is made smaller


@dataclass(frozen=True)
class InitPicture:
    """A picture to begin from, upright RGB.

    Attributes:
        name: what records call it.
        path: its file, where it has one.
        prefix: what its results' names begin with, where there are several; "" for one.
    """

    image: Image.Image
    name: str
    path: Path | None = None
    prefix: str = ""


def check_given(given: PictureLike | None) -> None:
    """Look whether there is a picture to begin from, or a folder of some.

    Raises:
        UserError: there is none, or a file that is no picture.
    """
    if given is None:
        raise UserError("a picture to begin from is missing: --init-img FILE, or a folder of pictures")
    if isinstance(given, Image.Image):
        return
    if Path(given).is_dir():
        pictures_at(given, "picture")
    else:
        check_image(given)


def init_pictures(given: PictureLike | None) -> Iterator[InitPicture]:
    """The picture of a file, of a program, or those of a folder, one at a time; unreadable ones of a folder are named.

    Raises:
        UserError: there is none.
    """
    check_given(given)
    assert given is not None
    if isinstance(given, Image.Image):
        yield InitPicture(to_rgb(given), "a picture")
        return
    if not Path(given).is_dir():
        yield InitPicture(load_image(given), os.fspath(given), Path(given))
        return
    found = 0
    for path, image in readable_images(pictures_at(given, "picture")):
        found += 1
        yield InitPicture(image, str(path), path, f"{short_name(path)}-")
    if not found:
        raise UserError(f"none of the pictures in '{given}' can be read")


@dataclass(frozen=True)
class Fit:
    """How pictures get the size at which a model works.

    Attributes:
        factor: what the model divides height and width by.
        usual: width and height of the pictures that it was trained on.
        height, width: the middle is cut out at this size, where both are given; one alone keeps the aspect.
        longest: no side gets longer than this.
        said: sizes of which it has been said that they are worked on smaller.
    """

    factor: int
    usual: tuple[int, int]
    height: int | None = None
    width: int | None = None
    longest: int | None = None
    said: set[tuple[int, int]] = field(default_factory=set, compare=False)

    @classmethod
    def of(cls, studio: Studio, options: Any) -> Fit:
        """What options with ``height``, ``width`` and ``longest`` ask for.

        Raises:
            UserError: a size that the model's factor does not divide.
        """
        usual, factor = usual_settings(studio), int(studio.model.first_stage_model.factor)
        check_size(options.width or factor, options.height or factor, factor)
        if options.longest is not None and options.longest < factor:
            raise UserError(f"--longest {options.longest} is too small; the model needs at least {factor}")
        size = int(usual["width"]), int(usual["height"])
        return cls(factor, size, options.height, options.width, options.longest)

    @property
    def cuts(self) -> bool:
        """Whether the middle of a picture is cut out."""
        return self.height is not None and self.width is not None

    @property
    def target(self) -> tuple[int, int]:
        """Width and height of a part that is worked on by itself: those asked for, else those of the training."""
        return self.width or self.usual[0], self.height or self.usual[1]

    def part(self, image: Image.Image) -> Image.Image:
        """A part of a picture at the largest size of its own aspect that ``target`` has room for."""
        scale = min(there / here for there, here in zip(self.target, image.size, strict=True))
        size = fit_size(round(image.width * scale), round(image.height * scale), self.factor)
        return image.resize(size, Image.Resampling.LANCZOS)

    def __call__(self, image: Image.Image) -> Image.Image:
        """The picture at that size; larger ones than the model can do much with are made smaller, which is said."""
        if self.height is not None and self.width is not None:
            return centre_crop(image, self.width, self.height)
        if self.height is not None or self.width is not None:
            scale = self.height / image.height if self.height is not None else (self.width or 0) / image.width
            width, height = fit_size(round(image.width * scale), round(image.height * scale), self.factor)
            return image.resize((self.width or width, self.height or height), Image.Resampling.LANCZOS)
        share = math.prod(self.usual) / (image.width * image.height)
        if self.longest is not None or MOST * share >= 1:
            return fit_image(image, self.factor, self.longest)
        longest = round(max(image.size) * math.sqrt(share))
        fitted = fit_image(image, self.factor, longest)
        if image.size not in self.said:  # of a folder's pictures, once for each size
            log.info("the picture of %dx%d pixels is worked on at %dx%d; --longest or --H and --W would be other sizes",
                     *image.size, *fitted.size)  # fmt: skip
            self.said.add(image.size)
        return fitted

"""A folder of pictures as a data set for autoencoders."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import Dataset

from ldm.pictures.crops import check_crops, random_crop, whole_crop
from ldm.pictures.images import StrPath, list_images, load_image
from ldm.pictures.opening import check_image
from ldm.util import UserError

log = logging.getLogger(__name__)


class PictureFiles:
    """Picture files read on demand; one that turns out unreadable is named and the next readable one takes its place.

    Raises:
        UserError: not one file has a picture's header.
    """

    def __init__(self, paths: Sequence[Path], where: StrPath) -> None:
        self.where = where
        self.paths = [path for path in paths if self._opens(path)]
        if len(self.paths) < len(paths):
            log.warning("skipped %d of %d pictures in '%s'", len(paths) - len(self.paths), len(paths), where)
        if not self.paths:
            raise UserError(f"none of the {len(paths)} pictures in '{where}' can be read")
        self._broken: set[int] = set()

    def __len__(self) -> int:
        return len(self.paths)

    @staticmethod
    def _opens(path: Path) -> bool:
        try:
            check_image(path)
        except UserError as error:
            log.warning("skipped: %s", error)
            return False
        return True

    def read(self, index: int) -> tuple[Path, Image.Image]:
        """The picture of a file, or of the first readable file after it.

        Raises:
            UserError: none can be read.
        """
        for number in (*range(index, len(self)), *range(index)):
            if number in self._broken:
                continue
            try:
                return self.paths[number], load_image(self.paths[number])
            except UserError as error:
                self._broken.add(number)
                log.warning("skipped: %s", error)
        raise UserError(f"none of the {len(self)} pictures in '{self.where}' can be read")


class ImageFolder(Dataset[dict[str, Any]]):
    """All pictures below a folder; items are {"image": [size, size, 3] float32 in [-1, 1], "caption": ""}.

    Args:
        data_root: the folder; its subfolders are read too.
        size: side of the square items.
        crop: 'random' (a function of seed and index) or 'centre'.
        scales: smallest and largest side of a random crop, as shares of the picture's shorter side.
        flip: mirror half of the random crops.
        repeats: how often an epoch takes each picture, each time with another random crop.
        seed: another seed, other crops.

    Raises:
        UserError: no folder, no readable pictures, a setting that does not exist.
    """

    def __init__(
        self,
        data_root: str,
        size: int = 256,
        crop: str = "random",
        scales: Sequence[float] = (0.5, 1.0),
        flip: bool = True,
        repeats: int = 1,
        seed: int = 0,
    ) -> None:
        if crop not in ("random", "centre"):
            raise UserError(f"there is no crop '{crop}'; there are: random, centre")
        if repeats < 1:
            raise UserError(f"repeats must be at least 1, got {repeats}")
        self.scales = check_crops(size, scales)
        self.files = PictureFiles(list_images(data_root, recursive=True), data_root)
        self.size, self.crop, self.flip, self.repeats, self.seed = size, crop, flip, repeats, seed

    def __len__(self) -> int:
        return len(self.files) * self.repeats

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} of a data set of {len(self)}")
        number = int(index) % len(self)
        _, picture = self.files.read(number % len(self.files))
        if self.crop == "centre":
            return {"image": whole_crop(picture, self.size), "caption": ""}
        image = random_crop(picture, self.size, self.seed, number, self.scales, self.flip)
        return {"image": image, "caption": ""}

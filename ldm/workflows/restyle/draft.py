"""The frames of a film that is being restyled, kept until it is whole, so that a run that stopped goes on."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ldm.control.files import CacheError, open_cache, save_cache
from ldm.pictures.images import load_image, save_image
from ldm.util import UserError
from ldm.workflows.restyle.steady import Steady

log = logging.getLogger(__name__)

KIND = "frames of a film so far"
SO_FAR = "so_far.safetensors"


class Draft:
    """A folder of frames, and a file that says how many there are and what the next one needs.

    Args:
        parameters: what the film depends on; frames of another one are not gone on with.
    """

    def __init__(self, folder: Path, steady: float, parameters: Mapping[str, Any]) -> None:
        self.folder, self.steady = folder, steady
        self.film = hashlib.sha256(json.dumps(dict(parameters), sort_keys=True).encode()).hexdigest()

    def read(self) -> tuple[list[Image.Image], Steady]:
        """The frames that are there, from the first one on, and what is carried on to the next."""
        try:
            tensors, about = open_cache(self.folder / SO_FAR, KIND, {"film": self.film})
            images = [load_image(self._frame(number)) for number in range(int(about["frames"]))]
        except (CacheError, UserError, KeyError, ValueError):
            return [], Steady(self.steady)
        log.info("going on after %d frames in '%s'", len(images), self.folder)
        return images, Steady.of(self.steady, {name: tensor.clone() for name, tensor in tensors.items()})

    def add(self, start: int, images: Sequence[Image.Image], steady: Steady) -> None:
        """Keep frames, the first of which has the number ``start``.

        Raises:
            UserError: the disk is full or the folder cannot be written; what was kept before stays.
        """
        for number, image in enumerate(images, start):
            save_image(image, self._frame(number))
        save_cache(steady.tensors(), self.folder / SO_FAR,
                   {"kind": KIND, "film": self.film, "frames": str(start + len(images))})  # fmt: skip

    def remove(self) -> None:
        """The film is whole, and its frames are in it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _frame(self, number: int) -> Path:
        return self.folder / f"{number:05d}.png"

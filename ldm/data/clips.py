"""Clips for training on films: from folders of frames, mp4 files and the like, and GIFs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ldm.draws import number_of, uniform
from ldm.pictures.film import ANIMATED_SUFFIXES, FILM_SUFFIXES, Film, read_film
from ldm.pictures.images import centre_crop, image_to_array, list_images
from ldm.util import UserError

log = logging.getLogger(__name__)

MOTION_GAIN = 24.0  # motion numbers for each 1 of 255 that a pixel changes in a frame, on average


class ClipFolder(Dataset[dict[str, Any]]):
    """Parts of the films below a folder: files (mp4, mov, webm, GIF, ...) and subfolders of frames.

    Items are {"frames": [T, size, size, 3] float32 in [-1, 1], "fps": float, "motion": float, "caption": str}. The
    caption is the text beside a film, ``<name>.txt``, if there is one.

    Args:
        data_root: the folder.
        frames: T; shorter films are left out.
        size: width and height in pixels; the middle of each frame is taken.
        step: every so many frames of a film are taken.
        motion: the motion number of all clips, 0 to 255; None: by how much pixels change from frame to frame.
        repeats: how often an epoch takes each film, each time another part of it.
        seed: another seed, other parts.

    Raises:
        UserError: no folder, no film with enough frames, a setting that does not exist.
    """

    def __init__(
        self,
        data_root: str,
        frames: int = 8,
        size: int = 64,
        step: int = 1,
        motion: float | None = None,
        repeats: int = 1,
        seed: int = 0,
    ) -> None:
        if frames < 2 or step < 1 or repeats < 1 or size < 1:
            got = f"{frames}, {step}, {repeats} and {size}"
            raise UserError(f"clips need frames >= 2 and step, repeats, size >= 1; got {got}")
        if motion is not None and not 0 <= motion <= 255:
            raise UserError(f"motion lies between 0 and 255, got {motion}")
        self.frames, self.size, self.step, self.motion = frames, size, step, motion
        self.repeats, self.seed = repeats, seed
        self.paths = [path for path in film_paths(data_root) if self._long_enough(path)]
        if not self.paths:
            raise UserError(f"'{data_root}' has no film of {self.span} frames or more that can be read")

    @property
    def span(self) -> int:
        """The frames of a film that a clip reaches over."""
        return (self.frames - 1) * self.step + 1

    def __len__(self) -> int:
        return len(self.paths) * self.repeats

    def __getitem__(self, index: int) -> dict[str, Any]:
        number = number_of(index, len(self))
        path = self.paths[number % len(self.paths)]
        film = read_film(path)
        first = int(uniform(self.seed, number, "part")[0] * (len(film.frames) - self.span + 1))
        chosen = film.frames[first : first + self.span : self.step]
        clip = np.stack([image_to_array(centre_crop(frame, self.size, self.size)) for frame in chosen])
        motion = motion_of(clip) if self.motion is None else self.motion
        return {"frames": clip, "fps": np.float32(film.fps / self.step), "motion": np.float32(motion),
                "caption": caption_of(path)}  # fmt: skip

    def _long_enough(self, path: Path) -> bool:
        try:
            film: Film = read_film(path, most=self.span)
        except UserError as error:
            log.warning("skipped: %s", error)
            return False
        if len(film.frames) < self.span:
            log.warning("skipped: '%s' has %d frames, fewer than %d", path, len(film.frames), self.span)
            return False
        return True


def film_paths(folder: str) -> Sequence[Path]:
    """The films of a folder: files that are called like one, and subfolders with pictures, in order of their names.

    Raises:
        UserError: there is no such folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"there is no folder of films '{folder}'")
    suffixes = FILM_SUFFIXES | ANIMATED_SUFFIXES - {".png"}
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and path.suffix.lower() in suffixes]
    folders = [path for path in sorted(root.rglob("*")) if path.is_dir() and _has_frames(path)]
    return sorted([*files, *folders])


def _has_frames(folder: Path) -> bool:
    try:
        return bool(list_images(folder))
    except UserError:
        return False


def motion_of(clip: np.ndarray) -> float:
    """A motion number, 0 to 255, for frames [T, H, W, 3] in [-1, 1]: how much a pixel changes from one to the next."""
    return float(min(255.0, MOTION_GAIN * 127.5 * np.abs(np.diff(clip, axis=0)).mean()))


def caption_of(path: Path) -> str:
    """The text beside a film; empty where there is none."""
    text = path.with_suffix(".txt")
    return text.read_text(encoding="utf-8").strip() if text.is_file() else ""

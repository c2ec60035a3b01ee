"""A folder of pictures and their captions as a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from ldm.data.folder import PictureFiles
from ldm.draws import uniform
from ldm.pictures.crops import check_crops, random_crop, whole_crop
from ldm.pictures.images import list_images
from ldm.texts import read_text
from ldm.util import UserError, parse_json

LISTING = "captions.jsonl"


class CaptionedFolder(Dataset[dict[str, Any]]):
    """Pictures with captions; items are {"image": [size, size, 3] float32 in [-1, 1], "caption": str}.

    The folder holds either `captions.jsonl`, with a line {"file": "a.png", "caption": "..."} for each picture, or a
    text file beside each picture: `a.png` and `a.txt`.

    Args:
        data_root: the folder.
        size: side of the square items.
        crop: 'centre' or 'random' (a function of seed and index).
        scales: smallest and largest side of a random crop, as shares of the picture's shorter side.
        flip: mirror half of the random crops; leave it off where captions say left and right.
        caption_dropout: share of items with an empty caption, for classifier-free guidance.
        repeats: how often an epoch takes each picture.
        seed: another seed, other crops and other empty captions.

    Raises:
        UserError: no folder, no readable pictures, a picture without a caption, a broken line in `captions.jsonl`.
    """

    def __init__(
        self,
        data_root: str,
        size: int = 256,
        crop: str = "centre",
        scales: Sequence[float] = (0.8, 1.0),
        flip: bool = False,
        caption_dropout: float = 0.0,
        repeats: int = 1,
        seed: int = 0,
    ) -> None:
        if crop not in ("random", "centre"):
            raise UserError(f"there is no crop '{crop}'; there are: random, centre")
        if repeats < 1 or not 0 <= caption_dropout <= 1:
            raise UserError(
                f"captioned pictures need repeats >= 1 and caption_dropout in [0, 1], "
                f"got {repeats} and {caption_dropout}"
            )
        self.scales = check_crops(size, scales)
        self.captions = read_captions(Path(data_root))
        self.files = PictureFiles(list(self.captions), data_root)
        self.size, self.crop, self.flip, self.seed = size, crop, flip, seed
        self.caption_dropout, self.repeats = caption_dropout, repeats

    def __len__(self) -> int:
        return len(self.files) * self.repeats

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} of a data set of {len(self)}")
        number = int(index) % len(self)
        path, picture = self.files.read(number % len(self.files))
        if self.crop == "random":
            image = random_crop(picture, self.size, self.seed, number, self.scales, self.flip)
        else:
            image = whole_crop(picture, self.size)
        dropped = float(uniform(self.seed, number, "dropout")[0]) < self.caption_dropout
        return {"image": image, "caption": "" if dropped else self.captions[path]}


def read_captions(folder: Path) -> dict[Path, str]:
    """Picture file -> caption, from `captions.jsonl` where there is one, else from the text file beside each picture.

    Raises:
        UserError: as `CaptionedFolder`.
    """
    if (folder / LISTING).is_file():
        return _from_listing(folder)
    pictures = list_images(folder)
    bare = [path for path in pictures if not path.with_suffix(".txt").is_file()]
    if bare:
        raise UserError(
            f"{len(bare)} of {len(pictures)} pictures in '{folder}' have no caption, the first is '{bare[0].name}': "
            f"write '{bare[0].stem}.txt' beside it, or a {LISTING}"
        )
    return {path: _caption_file(path.with_suffix(".txt")) for path in pictures}


def _caption_file(path: Path) -> str:
    text = " ".join(read_text(path, "caption file").split())
    if not text:
        raise UserError(f"the caption file '{path}' is empty")
    return text


def _from_listing(folder: Path) -> dict[Path, str]:
    listing = folder / LISTING
    captions: dict[Path, str] = {}
    for number, line in enumerate(read_text(listing, "list of captions").split("\n"), 1):
        if line.strip():
            name, text = _entry(line, f"line {number} of '{listing}'")
            if not _is_file(folder / name):
                raise UserError(f"line {number} of '{listing}' names '{name}', which is not in the folder")
            captions[folder / name] = text
    if not captions:
        raise UserError(f"'{listing}' is empty; a line is " + '{"file": "a.png", "caption": "a red star"}')
    return captions


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file can have
        return False


def _entry(line: str, where: str) -> tuple[str, str]:
    entry = parse_json(line, where)
    values = [entry.get(key) if isinstance(entry, dict) else None for key in ("file", "caption")]
    if not all(isinstance(value, str) and value.strip() for value in values):
        raise UserError(f"{where} needs the keys 'file' and 'caption', both text")
    return str(values[0]), str(values[1])

"""A folder of pictures and their captions as a data set."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
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
HUB = ("metadata.jsonl", "metadata.csv")  # of the Hugging Face hub's image folders
TEXTS = ("text", "caption", "prompt")  # what their columns of captions are called


class CaptionedFolder(Dataset[dict[str, Any]]):
    """Pictures with captions; items are {"image": [size, size, 3] float32 in [-1, 1], "caption": str}.

    The folder holds `captions.jsonl`, with a line {"file": "a.png", "caption": "..."} for each picture; or
    `metadata.jsonl` or `metadata.csv` with the columns `file_name` and `text`, as image folders of the Hugging Face hub
    have them; or a text file beside each picture: `a.png` and `a.txt`.

    Args:
        data_root: the folder.
        size: side of the square items.
        crop: 'centre' or 'random' (a function of seed and index).
        scales: smallest and largest side of a random crop, as shares of the picture's shorter side.
        flip: mirror half of the random crops; leave it off where captions say left and right.
        caption_dropout: share of items with an empty caption, for classifier-free guidance.
        repeats: how often an epoch takes each picture.
        seed: another seed, other crops and other empty captions.
        caption_key: the column of the captions in `metadata.jsonl`; None: the first of text, caption and prompt.

    Raises:
        UserError: no folder, no readable pictures, a picture without a caption, a broken line in the list of captions.
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
        caption_key: str | None = None,
    ) -> None:
        if crop not in ("random", "centre"):
            raise UserError(f"there is no crop '{crop}'; there are: random, centre")
        if repeats < 1 or not 0 <= caption_dropout <= 1:
            raise UserError(
                f"captioned pictures need repeats >= 1 and caption_dropout in [0, 1], "
                f"got {repeats} and {caption_dropout}"
            )
        self.scales = check_crops(size, scales)
        self.captions = read_captions(Path(data_root), caption_key)
        self.files = PictureFiles(list(self.captions), data_root)
        self.size, self.crop, self.flip, self.seed = size, crop, flip, seed
        self.caption_dropout, self.repeats = caption_dropout, repeats

    @property
    def sentence(self) -> str:
        """The shortest caption."""
        return min(self.captions.values(), key=len)

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


def read_captions(folder: Path, caption_key: str | None = None) -> dict[Path, str]:
    """Picture file -> caption, from the list of captions where there is one, else from the text file beside each.

    Raises:
        UserError: as `CaptionedFolder`.
    """
    keys = TEXTS if caption_key is None else (caption_key,)
    columns = {LISTING: ("file", ("caption",)), **dict.fromkeys(HUB, ("file_name", keys))}
    for name, (file_key, text_keys) in columns.items():
        if (folder / name).is_file():
            return _from_listing(folder / name, file_key, text_keys)
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


def _from_listing(listing: Path, file_key: str, text_keys: Sequence[str]) -> dict[Path, str]:
    captions: dict[Path, str] = {}
    for where, entry in _entries(listing):
        name, text = _named(entry, file_key, text_keys, where)
        picture = listing.parent / name
        if not _is_file(picture):
            raise UserError(f"{where} names '{name}', which is not in the folder")
        captions[picture] = text
    if not captions:
        example = f'{{"{file_key}": "a.png", "{text_keys[0]}": "a red star"}}'
        raise UserError(f"'{listing}' is empty; a line is {example}")
    return captions


def _entries(listing: Path) -> Iterator[tuple[str, Any]]:
    """Each line of a list, as JSON or by the columns of a CSV file, and where it is."""
    text = read_text(listing, "list of captions")
    if listing.suffix == ".csv":
        reader = csv.DictReader(io.StringIO(text))
        yield from ((f"line {reader.line_num} of '{listing}'", row) for row in reader)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield (where := f"line {number} of '{listing}'"), parse_json(line, where)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file can have
        return False


def _named(entry: Any, file_key: str, text_keys: Sequence[str], where: str) -> tuple[str, str]:
    """The file and the caption of a line.

    Raises:
        UserError: one of them is not there, or no text.
    """
    columns = entry if isinstance(entry, dict) else {}
    text_key = next((key for key in text_keys if key in columns), text_keys[0])
    values = [columns.get(key) for key in (file_key, text_key)]
    if not all(isinstance(value, str) and value.strip() for value in values):
        others = f"; it has: {', '.join(map(str, columns))}" if columns and text_key not in columns else ""
        raise UserError(f"{where} needs the keys '{file_key}' and '{text_key}', both text{others}")
    return str(values[0]), str(values[1])

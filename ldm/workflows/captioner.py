"""Sentences beside training pictures, said by a captioning model on this disk."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from ldm.checkpoint.transformers_folder import quiet_transformers, read_preparation, read_transformers
from ldm.pictures.images import list_images, readable_images
from ldm.pictures.masks import is_mask_of_another
from ldm.util import UserError, atomic_write, printable

log = logging.getLogger(__name__)

WHAT = "captioning model"
TOKENS, BEAMS = 40, 3


class Captioner:
    """A model that says what a picture shows, such as BLIP, GIT or a ViT with GPT-2; on the CPU, without any chance.

    Args:
        folder: of transformers: the model, its preparation of pictures and its tokenizer.

    Raises:
        UserError: there is no such model.
        MissingPartError: it needs a package that is not installed.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.model = read_transformers(folder, ("AutoModelForImageTextToText",), WHAT)
        self.pictures = read_preparation(folder, "AutoImageProcessor", WHAT)
        self.tokenizer = read_preparation(folder, "AutoTokenizer", WHAT)

    def __call__(self, image: Image.Image) -> str:
        """One sentence; empty where the model says nothing.

        Raises:
            UserError: the model takes more than a picture.
        """
        try:
            with torch.no_grad(), quiet_transformers():
                seen = self.pictures(images=image.convert("RGB"), return_tensors="pt")["pixel_values"]
                said = self.model.generate(pixel_values=seen, do_sample=False, num_beams=BEAMS, max_new_tokens=TOKENS)
                return " ".join(self.tokenizer.decode(said[0], skip_special_tokens=True).split())
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"the {WHAT} in '{self.folder}' does not caption a picture alone: {reason}") from error


@dataclass(frozen=True)
class Caption:
    """What stands beside a picture; ``made`` is false where it stood there before."""

    path: Path
    text: str
    made: bool


def about(caption: str, word: str, nouns: Sequence[str] = ()) -> str:
    """A caption that calls its thing by a word: in the place of the first noun that it has, else in front.

    Args:
        word: the placeholder, or what else prompts will call the thing; empty: the caption stays as it is.
        nouns: what a model may call it, such as dog and puppy.
    """
    if not word:
        return caption
    found = [m for noun in nouns if (m := re.search(rf"(?<!\w){re.escape(noun)}(?!\w)", caption, re.IGNORECASE))]
    if not found:
        return f"{word}, {caption}"
    first = min(found, key=lambda match: match.start())
    return caption[: first.start()] + word + caption[first.end() :]


def write_captions(
    folder: Path, captioner: str, word: str = "", nouns: Sequence[str] = (), overwrite: bool = False
) -> Iterator[Caption]:
    """Write a text file beside each picture of a folder, masks aside; one that is there stays unless ``overwrite``.

    Raises:
        UserError: there are no pictures, none can be read, two have one name, there is no such model, or nouns come
            without a word.
    """
    if nouns and not word:
        raise UserError("a noun is replaced by a word, which --word says, such as '*' or 'sks dog'")
    listed = list_images(folder)
    paths = [path for path in listed if not is_mask_of_another(path, listed)]
    names: dict[Path, Path] = {}
    for path in paths:
        other = names.setdefault(path.with_suffix(".txt"), path)
        if other != path:
            raise UserError(f"'{other}' and '{path}' would have one text between them: rename one")
    model: Captioner | None = None
    served = 0
    for path in paths:
        place = path.with_suffix(".txt")
        if place.exists() and not overwrite:
            served += 1
            yield Caption(place, printable(place.read_text(encoding="utf-8", errors="replace").strip()), made=False)
            continue
        model = model or Captioner(captioner)
        for _, image in readable_images([path]):
            served += 1
            said = model(image)
            if not said:
                log.warning("'%s' has no caption: the model says nothing", path)
                continue
            text = about(said, word, nouns)
            with atomic_write(place) as temporary:
                temporary.write_text(text + "\n", encoding="utf-8")
            yield Caption(place, printable(text), made=True)
    if not served:
        raise UserError(f"none of the {len(paths)} pictures in '{folder}' can be read")

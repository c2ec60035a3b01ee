"""A few pictures of something new, and sentences with the placeholder that is to stand for it."""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch.utils.data import Dataset

from ldm.data.buckets import Size, bucket_sizes, cover, fitted, nearest_bucket
from ldm.data.templates import KINDS, PER_IMAGE_WORDS, read_templates
from ldm.draws import uniform
from ldm.pictures.crops import check_crops, random_crop
from ldm.pictures.images import centre_crop, image_to_array, list_images, load_image, readable_images
from ldm.pictures.masks import find_masks, fit_mask, is_mask_of_another, read_mask
from ldm.texts import read_lines
from ldm.util import UserError

log = logging.getLogger(__name__)

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "linear": Image.Resampling.BILINEAR,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
CLASS_TEMPLATES = ("photo of a {}",)
KEPT = 64  # pictures that are kept as they come out of resizing

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Example:
    """A training picture: its file, the placeholder for what it shows, its own sentences (none: the templates).

    ``mask`` is the file of the mask of what is learned of it; None: all of it is.
    """

    path: Path
    placeholder: str
    captions: tuple[str, ...] = ()
    mask: Path | None = None


class PersonalizedBase(Dataset[dict[str, Any]]):
    """Items are {"image": [size, size, 3] float32 in [-1, 1], "caption": str}, and "loss_mask" where there are masks.

    The picture of an item is always the same (flips and crops are chosen by its index), so that its latent can be
    cached; its sentence is drawn anew at each visit.

    Args:
        data_root: the folder of pictures; or one for each of several placeholders, {"*": "dogs", "@": "cats"}.
        size: side of the square items; None leaves pictures as they are.
        repeats: how often an epoch of the training set takes each picture.
        interpolation: how pictures are resized: bicubic, bilinear (linear), lanczos or nearest.
        flip_p: share of items that are mirrored.
        set: 'train', or anything else for one item a picture.
        placeholder_token: the word that stands for what the pictures show.
        per_image_tokens: some sentences have a further word for the picture itself: True for the letters that the
            EmbeddingManager takes by default, or the list of words that it was given.
        center_crop: take the middle square; otherwise the whole picture becomes square, whatever its shape.
        mixing_prob: share of sentences with a word for the picture, if there are such words.
        coarse_class_text: said before the placeholder: 'dog' for "a photo of dog *".
        templates: sentences of one's own with ``{}`` in the placeholder's place: a list, or a text file.
        captions: take the text beside each picture (``a.png``, ``a.txt``), each line of it a sentence with the
            placeholder in it; 'auto' takes it where there is one, and templates where there is none.
        crops: how many random square parts of each picture there are, besides ``center_crop``; 0 for none.
        scales: smallest and largest side of such a part, as shares of the shorter side.
        seed: another seed, other flips and crops.
        reg: these are class pictures of DreamBooth, and ``placeholder_token`` is the class: "photo of a dog".
        sizes: say what Stable Diffusion XL is told of a picture as well: ``original_size_as_tuple`` (height, width) of
            the file, ``crop_coords_top_left`` of the item in the picture made so large, ``target_size_as_tuple``.
        bucket_step: items are no squares, but of about that area and nearly of each picture's own aspect, in multiples
            of so many pixels (64 for Stable Diffusion XL); a batch is of one size. 0: squares.

    Raises:
        UserError: no folder, no picture that can be read, a sentence without a placeholder, too few words for the
            pictures, or an unknown setting.
    """

    kind = "object"

    def __init__(
        self,
        data_root: str | Mapping[str, str] = "",
        size: int | None = None,
        repeats: int = 100,
        interpolation: str = "bicubic",
        flip_p: float = 0.5,
        set: str = "train",
        placeholder_token: str = "*",
        per_image_tokens: bool | Sequence[str] = False,
        center_crop: bool = False,
        mixing_prob: float = 0.25,
        coarse_class_text: str | None = None,
        templates: str | Sequence[str] | None = None,
        captions: bool | str = False,
        crops: int = 0,
        scales: Sequence[float] = (0.7, 1.0),
        seed: int = 0,
        reg: bool = False,
        sizes: bool = False,
        bucket_step: int = 0,
        masks: bool = True,
    ) -> None:
        if interpolation not in INTERPOLATIONS:
            raise UserError(f"there is no interpolation '{interpolation}'; there are: {', '.join(INTERPOLATIONS)}")
        if repeats < 1 or crops < 0 or not 0 <= flip_p <= 1 or not 0 <= mixing_prob <= 1:
            raise UserError(
                f"personal pictures need repeats >= 1, crops >= 0, flip_p and mixing_prob in [0, 1], "
                f"got {repeats}, {crops}, {flip_p} and {mixing_prob}"
            )
        if captions not in (True, False, "auto"):
            raise UserError(f"captions is true, false or 'auto', not '{captions}'")
        if sizes and (crops or size is None):
            raise UserError("sizes of personal pictures go together with a 'size' and without random 'crops'")
        if bucket_step and (crops or size is None or not 0 < bucket_step <= size):
            raise UserError("bucket_step is a number of pixels up to 'size', which it needs, without random 'crops'")
        self.sizes = sizes
        self.bucket_sizes = bucket_sizes(size or 0, bucket_step) if bucket_step else []
        self.scales = check_crops(size or 1, scales)
        self.size, self.interpolation, self.flip_p = size, interpolation, flip_p
        self.center_crop, self.crops, self.seed = center_crop, crops, seed
        self.mixing_prob, self.coarse_class_text = mixing_prob, coarse_class_text
        alone, with_image = KINDS[self.kind]
        alone = CLASS_TEMPLATES if reg else alone
        self.templates = alone if templates is None else read_templates(templates)
        self.dual_templates = with_image if templates is None else tuple(f"{text} with {{}}" for text in self.templates)
        found = find_examples(data_root, placeholder_token, captions)
        self.examples = with_masks(found) if masks else found
        self.has_masks = any(example.mask is not None for example in self.examples)
        self.image_words = words_for_images(per_image_tokens, len(self.examples))
        self.repeats = repeats if set == "train" else 1
        self.files = tuple(f"{e.path} {e.path.stat().st_mtime_ns}" for e in self.examples)  # for cached latents

    def __len__(self) -> int:
        return len(self.examples) * self.repeats

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.picture(index), **self.labels(index)}

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The words that sentences have for what is to be learned."""
        return tuple(dict.fromkeys(example.placeholder for example in self.examples))

    @property
    def sentence(self) -> str:
        """A short one of the sentences: of the first picture's own, or of the templates."""
        first = self.examples[0]
        return min(first.captions or [text.format(self._word(first)) for text in self.templates], key=len)

    @property
    def buckets(self) -> list[int] | None:
        """Which of ``bucket_sizes`` each item has; None for squares."""
        if not self.bucket_sizes:
            return None
        places = [nearest_bucket(image_size(example.path)[::-1], self.bucket_sizes) for example in self.examples]
        return places * self.repeats

    def _size(self, picture: int) -> Size:
        """(height, width) of a picture's items."""
        assert self.size is not None
        if not self.bucket_sizes:
            return self.size, self.size
        return self.bucket_sizes[nearest_bucket(image_size(self.examples[picture].path)[::-1], self.bucket_sizes)]

    def picture(self, index: int) -> Array:
        """The picture of an item, [size, size, 3] (or its bucket's size) in [-1, 1]; the same at each visit."""
        return self._made(index, None)

    def mask(self, index: int) -> Array:
        """The mask of an item, [size, size] (or its bucket's size) in [0, 1], cut and mirrored as its picture is."""
        mask = self.examples[self._number(index) % len(self.examples)].mask
        return np.ones(self.picture(index).shape[:2], np.float32) if mask is None else self._made(index, mask)[..., 0]

    def _made(self, index: int, mask: Path | None) -> Array:
        """The picture of an item in [-1, 1], or a mask of it in [0, 1]."""
        number = self._number(index)
        picture, repeat = number % len(self.examples), number // len(self.examples)
        mirrored = float(uniform(self.seed, number, "mirror")[0]) < self.flip_p
        crop = repeat % self.crops if self.crops else None
        path = self.examples[picture].path
        made = _bucketed(path, mask, self._size(picture), self.interpolation) if self.bucket_sizes else _resized(
            path, mask, self.size, self.interpolation, self.center_crop, crop, self.scales, self.seed + picture
        )  # fmt: skip
        array = image_to_array(ImageOps.mirror(made) if mirrored else made)
        return array if mask is None else (array + 1) * np.float32(0.5)

    def labels(self, index: int) -> dict[str, Any]:
        """What an item has besides its picture: a sentence, drawn from Python's generator, sizes, a mask."""
        picture = self._number(index) % len(self.examples)
        masked = {"loss_mask": self.mask(index)} if self.has_masks else {}
        return {**self._sentence(picture), **(self._sizes(picture) if self.sizes else {}), **masked}

    def _sizes(self, picture: int) -> dict[str, Any]:
        """What Stable Diffusion XL is told of a picture; a mirrored one keeps its numbers, as its left is its right."""
        width, height = image_size(self.examples[picture].path)
        size = self._size(picture)
        if self.bucket_sizes:
            crop = list(cover((height, width), size)[1])
        else:
            short = min(width, height)
            crop = [round((side - short) / 2 * size[0] / short) if self.center_crop else 0 for side in (height, width)]
        numbers = {"original_size_as_tuple": [height, width], "crop_coords_top_left": crop,
                   "target_size_as_tuple": list(size)}  # fmt: skip
        return {name: np.asarray(value, np.float32) for name, value in numbers.items()}

    def _sentence(self, picture: int) -> dict[str, Any]:
        example = self.examples[picture]
        if example.captions:
            return {"caption": random.choice(example.captions)}
        word = self._word(example)
        if self.image_words and random.random() < self.mixing_prob:
            return {"caption": random.choice(self.dual_templates).format(word, self.image_words[picture])}
        return {"caption": random.choice(self.templates).format(word)}

    def _word(self, example: Example) -> str:
        """What a template calls a picture's subject."""
        return f"{self.coarse_class_text} {example.placeholder}" if self.coarse_class_text else example.placeholder

    def _number(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} of a data set of {len(self)}")
        return int(index) % len(self)


def find_examples(
    data_root: str | Mapping[str, str], placeholder: str, captions: bool | str = False
) -> tuple[Example, ...]:
    """The pictures of one folder, or of one for each placeholder; those that cannot be read are named and left out.

    Raises:
        UserError: no folder is given, it is missing or empty, none of its pictures can be read, or a picture's own
            sentences are missing or one lacks the placeholder.
    """
    if not data_root:
        raise UserError("there are no pictures to learn from: give their folder with --data_root DIR")
    folders = data_root if isinstance(data_root, Mapping) else {placeholder: data_root}
    examples: list[Example] = []
    for word, folder in folders.items():
        listed = list_images(folder)
        paths = [path for path in listed if not is_mask_of_another(path, listed)]
        readable = [path for path, _ in readable_images(paths)]
        if not readable:
            raise UserError(f"none of the {len(paths)} pictures in '{folder}' can be read")
        for path in readable:
            has_own = captions is True or (captions == "auto" and path.with_suffix(".txt").exists())
            examples.append(Example(path, word, captions_beside(path, word) if has_own else ()))
    return tuple(examples)


def with_masks(examples: Sequence[Example]) -> tuple[Example, ...]:
    """The examples with the masks that lie beside their pictures; says of how many there is one.

    Raises:
        UserError: there are several masks of one picture.
    """
    found = []
    for example in examples:
        masks = find_masks(example.path)
        if len(masks) > 1:
            raise UserError(f"'{example.path}' has {len(masks)} masks; one of what is to be learned would be right")
        found.append(replace(example, mask=masks[0] if masks else None))
    count = sum(example.mask is not None for example in found)
    if count:
        log.info("%d of %d pictures have a mask beside them: only what it marks is learned of them", count, len(found))
    return tuple(found)


def captions_beside(picture: Path, placeholder: str) -> tuple[str, ...]:
    """The sentences in the text file beside a picture, one a line.

    Raises:
        UserError: there is no such file, it is empty or not text, or the placeholder is not in every line.
    """
    path = picture.with_suffix(".txt")
    if not path.is_file():
        raise UserError(f"'{picture.name}' needs a sentence in '{path}', which is not there")
    sentences = tuple(" ".join(line.split()) for line in read_lines(path, "caption file"))
    if not sentences or not all(has_word(sentence, placeholder) for sentence in sentences):
        raise UserError(
            f"a sentence in '{path}' lacks the placeholder '{placeholder}'; 'a photo of {placeholder}' has it"
        )
    return sentences


def has_word(text: str, word: str) -> bool:
    """Whether a word stands in a text on its own, whatever its case."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None


def words_for_images(wish: bool | Sequence[str], count: int) -> tuple[str, ...]:
    """One word for each picture, or none at all.

    Raises:
        UserError: there are more pictures than words.
    """
    words = PER_IMAGE_WORDS if wish is True else tuple(wish or ())
    if words and count > len(words):
        raise UserError(
            f"per_image_tokens has {len(words)} words, but there are {count} pictures; give a longer list of words, "
            "or set it to false"
        )
    return words


@cache
def image_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture, upright."""
    return load_image(path).size


def _loaded(path: Path, mask: Path | None) -> Image.Image:
    """A picture, or its mask as a picture of the same size.

    Raises:
        UserError: one cannot be read, or the mask is empty.
    """
    if mask is None:
        return load_image(path)
    values = fit_mask(read_mask(mask), image_size(path)[::-1])
    return Image.fromarray((values.numpy() * 255).round().astype(np.uint8)).convert("RGB")


@lru_cache(maxsize=KEPT)
def _bucketed(path: Path, mask: Path | None, size: Size, interpolation: str) -> Image.Image:
    """The middle of a picture (or of its mask) that covers (height, width)."""
    return fitted(_loaded(path, mask), size, INTERPOLATIONS[interpolation])


@lru_cache(maxsize=KEPT)
def _resized(
    path: Path, mask: Path | None, size: int | None, interpolation: str, center: bool, crop: int | None,
    scales: tuple[float, float], seed: int,
) -> Image.Image:  # fmt: skip
    """A picture (or its mask) as a square: its middle, a random part, or all of it made to fit."""
    image = _loaded(path, mask)
    if center:
        side = min(image.size)
        image = centre_crop(image, side, side)
    if crop is not None:
        part = random_crop(image, size or min(image.size), seed, crop, scales, flip=False)
        return Image.fromarray(((part + 1) * 127.5).round().astype(np.uint8))
    return image if size is None else image.resize((size, size), INTERPOLATIONS[interpolation])

"""Photographs that need no download: those that scikit-image's wheel carries, all free of rights."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from ldm.draws import choose, number_of, uniform
from ldm.pictures.crops import check_crops, random_crop
from ldm.pictures.images import load_image
from ldm.util import UserError
from ldm.world.scene import Split
from ldm.world.sentences import LANGUAGES, language_called


@dataclass(frozen=True)
class Photo:
    """A file of scikit-image's data folder, and what is on it."""

    file: str
    subjects: dict[str, str]  # language -> noun phrase
    heldout: bool = False
    share: float = 1.0  # how often it is drawn, against the others

    @property
    def name(self) -> str:
        return Path(self.file).stem


def _photo(file: str, en: str, ko: str, zh: str, heldout: bool = False, share: float = 1.0) -> Photo:
    return Photo(file, {"en": en, "ko": ko, "zh": zh}, heldout, share)


PHOTOS: tuple[Photo, ...] = (
    _photo("astronaut.png", "an astronaut", "우주비행사", "宇航员", share=3),
    _photo("coffee.png", "a cup of coffee", "커피 한 잔", "一杯咖啡", share=3),
    _photo("motorcycle_left.png", "a motorcycle", "오토바이", "摩托车", share=2),
    _photo("motorcycle_right.png", "a motorcycle", "오토바이", "摩托车"),
    _photo("hubble_deep_field.jpg", "galaxies", "은하", "星系"),
    _photo("retina.jpg", "a retina", "망막", "视网膜"),
    _photo("ihc.png", "stained tissue", "염색된 조직", "染色的组织"),
    _photo("brick.png", "a brick wall", "벽돌 벽", "砖墙"),
    _photo("grass.png", "grass", "풀밭", "草地"),
    _photo("gravel.png", "gravel", "자갈", "碎石"),
    _photo("moon.png", "the surface of the moon", "달 표면", "月球表面"),
    _photo("page.png", "a printed page", "인쇄된 페이지", "印刷的书页"),
    _photo("cell.png", "a cell", "세포", "细胞"),
    _photo("chelsea.png", "a cat", "고양이", "猫", heldout=True),
    _photo("rocket.jpg", "a rocket", "로켓", "火箭", heldout=True),
    _photo("camera.png", "a man with a camera", "카메라를 든 남자", "拿着相机的男人", heldout=True),
    _photo("coins.png", "coins", "동전", "硬币", heldout=True),
)
TEMPLATES = {
    "en": ("a photograph of {}", "a photo of {}", "a picture of {}"),
    "ko": ("{} 사진", "{}의 사진", "{} 그림"),
    "zh": ("{}的照片", "一张{}的照片", "{}的图片"),
}


def photo_path(photo: Photo) -> Path:
    """Where the photograph lies.

    Raises:
        UserError: scikit-image is not installed, or this version of it does not carry the file.
    """
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise UserError("the bundled photographs come with the package 'scikit-image', which is not installed")
    path = Path(spec.origin).parent / "data" / photo.file
    if not path.exists():
        raise UserError(f"the installed scikit-image does not carry '{photo.file}': install scikit-image 0.22 or later")
    return path


@cache
def photos(split: Split = "all") -> tuple[Photo, ...]:
    """The photographs of a split; 'heldout' ones are never trained on.

    Raises:
        UserError: an unknown split.
    """
    if split not in ("train", "heldout", "all"):
        raise UserError(f"the photographs have no split '{split}'; they have: train, heldout, all")
    return tuple(photo for photo in PHOTOS if split == "all" or photo.heldout == (split == "heldout"))


def load_photo(photo: Photo) -> Image.Image:
    """The whole photograph as RGB, read once."""
    return _read_once(photo_path(photo))


@cache
def _read_once(path: Path) -> Image.Image:
    # The shipped models learned these numbers: by their profiles page.png would move by 13.6 of 255, rocket.jpg by 5.7.
    return load_image(path, profiled=False)


def recoloured(image: NDArray[np.float32], draws: Sequence[float]) -> NDArray[np.float32]:
    """Another order of the three channels, another contrast (0.5 to 1.2) and brightness, from three draws in [0, 1)."""
    order = tuple(itertools.permutations(range(3)))[int(draws[0] * 6)]
    contrast = np.float32(0.5 + 0.7 * draws[1])
    room = np.float32(abs(1 - contrast) + 0.1)
    return np.clip(image[..., order] * contrast + room * np.float32(2 * draws[2] - 1), -1, 1)


class BundledPhotos(Dataset[dict[str, Any]]):
    """Random square crops of the bundled photographs; every item is a function of (seed, index).

    Items are {"image": [size, size, 3] float32 in [-1, 1], "caption": str}.

    Args:
        split: 'train', 'heldout' (whole photographs that training never sees) or 'all'.
        size: width and height of the crops.
        length: how many items.
        seed: another seed, other crops.
        scales: smallest and largest side of the crop before it is resized, as `random_crop` takes them.
        flip: mirror half of the items.
        recolour: share of items whose colour channels are shuffled and whose contrast changes: there are few
            photographs, and an autoencoder should not learn their colours by heart.
        language: 'en', 'ko', 'zh' or 'mixed'.
        captioned: False leaves every caption empty.

    Raises:
        UserError: a length below 1, crops that cannot be, or an unknown language.
    """

    def __init__(
        self,
        split: Split = "train",
        size: int = 64,
        length: int = 10_000,
        seed: int = 0,
        scales: Sequence[float] = (0.2, 1.0),
        flip: bool = True,
        recolour: float = 0.0,
        language: str = "en",
        captioned: bool = True,
    ) -> None:
        if length < 1:
            raise UserError(f"a data set of photographs needs length >= 1, got {length}")
        self.scales = check_crops(size, scales)
        if language != "mixed":
            language_called(language)
        self.photos = photos(split)
        self.size, self.length, self.seed = size, length, seed
        self.flip, self.recolour, self.language = flip, recolour, language
        self.captioned = captioned
        self._limits = np.cumsum([photo.share for photo in self.photos]) / sum(photo.share for photo in self.photos)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        number = number_of(index, self.length)
        photo = self.photos[int(np.searchsorted(self._limits, self._draw(number, "which photo"), side="right"))]
        image = random_crop(load_photo(photo), self.size, self.seed, number, self.scales, self.flip)
        if self._draw(number, "recolour") < self.recolour:
            image = recoloured(image, [self._draw(number, name) for name in ("order", "contrast", "brightness")])
        return {"image": image, "caption": self._caption(photo, number) if self.captioned else ""}

    def _draw(self, number: int, name: str) -> float:
        return float(uniform(self.seed, number, name)[0])

    def _caption(self, photo: Photo, number: int) -> str:
        names = tuple(LANGUAGES)
        language = self.language
        if language == "mixed":
            language = names[int(choose(self.seed, number, "language", len(names))[0])]
        templates = TEMPLATES[language]
        template = templates[int(choose(self.seed, number, "photo template", len(templates))[0])]
        return template.format(photo.subjects[language])

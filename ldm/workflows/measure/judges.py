"""The measures that can be taken with the networks at hand, and why others are left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torchmetrics.functional.image as functional
from PIL import Image
from torch import Tensor, nn

from ldm.metrics import appearance
from ldm.metrics.clip_scores import cosine, directional
from ldm.metrics.distance import Distance
from ldm.metrics.histogram import HISTOGRAM
from ldm.metrics.inception import Inception, enter_2015
from ldm.metrics.likeness import ClipJudge
from ldm.metrics.networks import find_weights, load_network
from ldm.metrics.perceptual import cfsd_through, feature_distance, lpips, lpips_heads
from ldm.metrics.towers import Tower, alexnet, vgg16, vgg19
from ldm.pictures.images import image_to_tensor
from ldm.util import MissingPartError

SHORT = 512  # pixels of the short side in StyleID's evaluation
LONG = 256  # of the longer side where no network looks
CONTENT_METRICS: dict[str, tuple[str, str | None]] = {  # StyleID's name -> its title here, and its network
    "lpips": ("LPIPS", "alexnet"),
    "vgg": ("LPIPS_vgg", "vgg16"),
    "alexnet": ("AlexNet", "alexnet"),
    "ssim": ("1-SSIM", None),
    "ms-ssim": ("1-MS-SSIM", None),
}

MAKE: dict[str, Callable[[], nn.Module]] = {
    "alexnet": alexnet,
    "vgg16": vgg16,
    "vgg19": vgg19,
    "art_inception": Inception,
    "inception_2015": partial(Inception, of_2015=True),
}

Prepare = Callable[[Image.Image, int], Tensor]


def whole(image: Image.Image, side: int = 0) -> Tensor:
    """[1, 3, H, W] in [0, 1], as it is."""
    return (image_to_tensor(image)[None] + 1) / 2


def short_side(image: Image.Image, side: int = 0, grey: bool = False) -> Tensor:
    """[1, 3, H, W] in [0, 1] with a short side of 512 (bilinear, antialiased); grey by ITU-R 601 if asked."""
    short = min(image.size)
    if short != SHORT:
        width, height = (SHORT if length == short else int(SHORT * length / short) for length in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return whole(image.convert("L") if grey else image)


def long_side(image: Image.Image, side: int) -> Tensor:
    """[3, H, W] in [-1, 1] with a longer side of ``side`` pixels, 256 at most."""
    scale = min(side, LONG) / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    return image_to_tensor(image.resize((width, height), Image.Resampling.LANCZOS))


@dataclass(frozen=True)
class PairMeasure:
    """A number of a picture and its content, or of a picture and its style.

    Attributes:
        to: "content" or "style".
        prepare: a picture, and the longer side of the result, to what ``distance`` sees.
        seen: that in words, for the report.
    """

    to: str
    distance: Distance
    prepare: Prepare = whole
    seen: str = "its own size"

    def see(self, image: Image.Image, side: int) -> Any:
        """What is compared of a picture."""
        return self.distance.see(self.prepare(image, side))


@dataclass(frozen=True)
class SetFeatures:
    """A network's features [1, D] of a picture, for distances of whole sets."""

    see: Callable[[Image.Image], Tensor]
    seen: str


@dataclass
class Judges:
    """What can be measured.

    Attributes:
        pairs: by the measure's name.
        sets: by the network's name, a key of ``ldm.metrics.networks.NETWORKS``.
        networks: network -> file, sha256 and whether it is the published one.
        left_out: a sentence for each network that is not there.
    """

    pairs: dict[str, PairMeasure] = field(default_factory=dict)
    sets: dict[str, SetFeatures] = field(default_factory=dict)
    networks: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Wanted:
    """Which networks, from where, for which content metric."""

    folder: str | None = None
    any_weights: bool = False
    content_metric: str = "lpips"
    clip: str | None = None
    text: str | None = None
    content_text: str | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


def find_judges(wanted: Wanted) -> Judges:
    """All measures whose networks are at hand, on a device.

    Raises:
        UserError: a network's file is not the published one, or holds other weights; or the folder of CLIP.
    """
    judges = Judges()
    _content_metric(judges, wanted)
    _with_network(judges, wanted, "vgg19", "CFSD", partial(_cfsd, judges, wanted.device))
    for name, form in (("art_inception", "ArtFID, FID, FID_infinity, KID"), ("inception_2015", "FID_2015, KID_2015")):
        _with_network(judges, wanted, name, form, partial(_inception, judges, name, wanted.device))
    judges.pairs["histogram"] = PairMeasure("style", HISTOGRAM, seen="its own size, above 256 as 256x256")
    for to, distances in (("style", appearance.STYLE), ("content", appearance.CONTENT)):
        for name, distance in distances.items():
            judges.pairs[name] = PairMeasure(to, distance, long_side, "the result's longer side, at most 256")
    _clip(judges, wanted)
    return judges


def _with_network(judges: Judges, wanted: Wanted, name: str, measures: str, use: Callable[[nn.Module], None]) -> None:
    """Load a network and use it, or say what is left out without it."""
    try:
        weights = find_weights(name, wanted.folder, wanted.any_weights)
    except MissingPartError as error:
        judges.left_out.append(f"{measures} left out: {error}")
        return
    module = MAKE[name]()
    load_network(module, name, weights)
    judges.networks[name] = {"file": str(weights.path), "sha256": weights.sha256, "released": weights.released}
    use(module.to(wanted.device))


def _content_metric(judges: Judges, wanted: Wanted) -> None:
    """The content distance of ArtFID under StyleID's names: in colour, and of grey pictures."""
    name = wanted.content_metric
    title, network = CONTENT_METRICS[name]
    if network is None:
        similar: Callable[..., Any] = functional.structural_similarity_index_measure
        if name == "ms-ssim":
            similar = functional.multiscale_structural_similarity_index_measure
        distance = Distance(_as_it_is, lambda a, b: 1 - float(similar(a, b, data_range=1.0)))
        _in_colour_and_grey(judges, title, distance)
        return

    def use(tower: nn.Module) -> None:
        assert isinstance(tower, Tower)
        distance = (
            feature_distance(tower)
            if name == "alexnet"
            else lpips(tower, lpips_heads("alex" if name == "lpips" else "vgg"))
        )
        _in_colour_and_grey(judges, title, _on(wanted.device, distance))

    _with_network(judges, wanted, network, f"ArtFID, {title}, {title}_gray", use)


def _in_colour_and_grey(judges: Judges, title: str, distance: Distance) -> None:
    judges.pairs[title] = PairMeasure("content", distance, short_side, "short side 512")
    grey = partial(short_side, grey=True)
    judges.pairs[f"{title}_gray"] = PairMeasure("content", distance, grey, "grey, short side 512")


def _on(device: torch.device, distance: Distance) -> Distance:
    return Distance(lambda picture: distance.see(picture.to(device)), distance.compare)


def _as_it_is(picture: Tensor) -> Tensor:
    return picture


def _cfsd(judges: Judges, device: torch.device, tower: nn.Module) -> None:
    assert isinstance(tower, Tower)
    judges.pairs["CFSD"] = PairMeasure("content", _on(device, cfsd_through(tower)))


def _inception(judges: Judges, name: str, device: torch.device, network: nn.Module) -> None:
    if name == "inception_2015":
        judges.sets[name] = SetFeatures(lambda image: network(enter_2015(whole(image).to(device))), "299x299, bilinear")
    else:
        judges.sets[name] = SetFeatures(lambda image: network(short_side(image).to(device)), "short side 512")


def _clip(judges: Judges, wanted: Wanted) -> None:
    """Cosines of CLIP: of a picture with its style, its content and a text; and of the change with that of texts."""
    if wanted.clip is None:
        judges.left_out.append("CLIP_style, CLIP_content, CLIP_text left out: --clip FOLDER names a CLIP model")
        return
    clip = ClipJudge(wanted.clip)

    def see(picture: Tensor) -> Tensor:
        return clip.see(2 * picture - 1)

    between = Distance(see, lambda a, b: float(cosine(a, b)))
    seen = "the middle, at CLIP's size"
    judges.networks["clip"] = {"file": wanted.clip, "sha256": None, "released": None}
    judges.pairs["CLIP_style"] = PairMeasure("style", between, seen=seen)
    judges.pairs["CLIP_content"] = PairMeasure("content", between, seen=seen)
    if wanted.text is None:
        judges.left_out.append("CLIP_text left out: --text says what the results should show")
        return
    text = clip.read([wanted.text])
    judges.pairs["CLIP_text"] = PairMeasure("content", Distance(see, lambda a, _: float(cosine(a, text))), seen=seen)
    if wanted.content_text is not None:
        before = clip.read([wanted.content_text])
        change = Distance(see, lambda a, b: float(directional(b, a, before, text)))
        judges.pairs["CLIP_direction"] = PairMeasure("content", change, seen=seen)

"""Boxes as regions: each phrase is a prompt of its own, and its prediction counts in its box. See docs/guidance.md."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ldm.control.regions import Box, Grid, Region
from ldm.models.diffusion.guidance import guided
from ldm.models.diffusion.regional import Backdrop, Regional, View, weights_of
from ldm.modules.encoders.learned_words import placeholders_of
from ldm.modules.encoders.multilingual import Multilingual
from ldm.pictures.images import image_to_tensor
from ldm.util import ConfigError
from ldm.workflows.guide.options import CENTRED, GRADIENT, REGIONS, VIEWS, WAYS, WHOLE
from ldm.workflows.guide.phrases import Parted, part, sized
from ldm.workflows.guide.places import encoder_of, places
from ldm.workflows.guide.reading import Guide, RegionWishes
from ldm.workflows.inversion.cache import clean_latent

BOOTSTRAP = 0.2  # of the steps (Bar-Tal et al. 2023); a centred region finds its place without
LEVELS = (40, 128, 215)  # of each channel of the flat colours around a region
COLOUR_CELLS = 8  # a side of the flat pictures that are encoded for them
Led = Callable[[Sequence[str]], tuple[Any, Any]]


@dataclass(frozen=True)
class RegionSettings:
    """How regions are made, with nothing left open.

    Attributes:
        centred: whether a region sees the picture with its box in the middle.
        background: the prompt outside of all boxes; None: what is left of the whole one, or all of it if nothing is;
            centred regions have no such prompt, and each place is the nearest one's.
        bootstrap: the share of the steps in which a region sees a flat colour around it.
        sizes: words for sizes -> the share of the picture's side that the model gives a thing of it; may be empty.
    """

    centred: bool
    background: str | None
    bootstrap: float
    sizes: Mapping[str, float] = field(default_factory=dict)

    def size_for(self, box: Box) -> str:
        """The word of the size that is nearest to a box; '' without any."""
        side = min(box.right - box.left, box.bottom - box.top)
        return min(self.sizes, key=lambda size: abs(self.sizes[size] - side), default="")


def region_settings(wishes: RegionWishes, inference: Mapping[str, Any]) -> RegionSettings | None:
    """The settings for what is asked for and what a model's ``inference:`` section says; None: not by regions.

    The section may have ``layout: regions``, and ``regions: {view: centred, sizes: {small: 0.5}}``.

    Raises:
        ConfigError: the section has other things there.
    """
    usual, way = inference.get("regions") or {}, inference.get("layout", GRADIENT)
    view = usual.get("view", WHOLE) if isinstance(usual, Mapping) else None
    if way not in WAYS or view not in VIEWS:
        raise ConfigError(f"inference: layout is {' or '.join(WAYS)}, and regions has view: {' or '.join(VIEWS)}")
    if (wishes.way or way) != REGIONS:
        return None
    centred = (wishes.view or view) == CENTRED
    usual_bootstrap = 0.0 if centred else BOOTSTRAP
    bootstrap = usual_bootstrap if wishes.bootstrap is None else wishes.bootstrap
    return RegionSettings(centred, wishes.background, bootstrap, dict(usual.get("sizes") or {}))


@dataclass(frozen=True)
class Regions:
    """The boxes of a request as regions.

    Attributes:
        phrases: what is wanted, as it was given, for each region.
        regions: where; a word in several boxes has several.
    """

    phrases: tuple[str, ...]
    regions: tuple[Region, ...]
    settings: RegionSettings

    @classmethod
    def of(cls, guide: Guide, settings: RegionSettings) -> Regions:
        pairs = [(wish.word, one) for wish in guide.wishes for one in wish.region.parts]
        return cls(tuple(word for word, _ in pairs), tuple(one for _, one in pairs), settings)

    def prompts(self, model: Any, prompt: str) -> list[str]:
        """The prompt of each region under that of the whole picture, and at the end the rest's if it has one.

        Raises:
            UserError: a phrase that does not stand there so often, or is not in what a foreign prompt is read as.
        """
        parted = self._parted(model, prompt)
        own = []
        for phrase, region in zip(parted.phrases, self.regions, strict=True):
            size = self.settings.size_for(region.frame)
            own.append(parted.prompt(sized(phrase, size, self.settings.sizes) if size else phrase))
        if self.settings.background is not None:
            return [*own, self.settings.background]
        return own if self.settings.centred else [*own, parted.rest or prompt]

    def _parted(self, model: Any, prompt: str) -> Parted:
        encoder = encoder_of(model)
        if not (isinstance(encoder, Multilingual) and encoder.is_foreign(prompt)):
            return part(prompt, self.phrases)
        for phrase in self.phrases:
            places(model, prompt, phrase)
        read = encoder.translate([prompt, *self.phrases], placeholders_of(model.embedding_manager))
        return part(read[0], [b if encoder.is_foreign(a) else a for a, b in zip(self.phrases, read[1:], strict=True)])

    def denoiser(self, model: Any, prompts: Sequence[str], led: Led, scale: float, walk: RegionWalk) -> Regional:
        """What is asked in place of the model for a batch of prompts.

        Args:
            led: prompts -> what they lead to and away from.
            scale: of guidance.
        """
        rows = [self.prompts(model, prompt) for prompt in prompts]
        told = [list(texts) for texts in zip(*rows, strict=True)]
        grid = (walk.noise.shape[-2], walk.noise.shape[-1])
        distances = [region.distances(grid) for region in self.regions]
        weights = weights_of(distances, rest=len(told) > len(self.regions))
        alone = [weights_of([distance], rest=True)[0] for distance in distances]
        shifts = [self._shift(region.frame, grid) for region in self.regions] if self.settings.centred else []
        views = []
        for number, (texts, weight) in enumerate(zip(told, weights, strict=True)):
            cond, away = led(texts)
            views.append(
                View(
                    guided(model, scale, away), cond, weight,
                    shifts[number] if number < len(shifts) else (0, 0),
                    alone[number] if number < len(alone) else None,
                )
            )  # fmt: skip
        return Regional(model, views, self._backdrop(model, walk))

    def _shift(self, box: Box, grid: Grid) -> tuple[int, int]:
        """What brings the middle of a box to that of the picture; a thing larger than its box stays in the picture."""
        size = self.settings.sizes.get(self.settings.size_for(box), 0.0)
        middle = (min(max(place, size / 2), 1 - size / 2) for place in box.middle)
        down, right = (round((0.5 - place) * cells) for place, cells in zip(middle, grid, strict=True))
        return down, right

    def _backdrop(self, model: Any, walk: RegionWalk) -> Backdrop | None:
        steps = round(self.settings.bootstrap * walk.steps)
        return Backdrop(flat_latents(model), walk.noise, steps) if steps else None

    def about(self, model: Any, prompt: str) -> dict[str, Any]:
        """For a picture's parameters."""
        told = self.prompts(model, prompt)
        asked = {"layout": REGIONS, "regions": told, "layout_view": CENTRED if self.settings.centred else WHOLE}
        return asked | ({"layout_bootstrap": self.settings.bootstrap} if self.settings.bootstrap else {})


@dataclass(frozen=True)
class RegionWalk:
    """The start noise [B, C, h, w] of a batch, and how many steps it is walked in."""

    noise: Tensor
    steps: int


def flat_latents(model: Any) -> Tensor:
    """Clean latents [K, C, 1, 1] of flat pictures in colours that do not resemble each other."""
    side = COLOUR_CELLS * model.first_stage_model.factor
    colours = list(itertools.product(LEVELS, repeat=3))[:: len(LEVELS) + 1]
    flat = torch.stack([image_to_tensor(Image.new("RGB", (side, side), colour)) for colour in colours])
    middle = COLOUR_CELLS // 2
    return clean_latent(model, flat)[..., middle : middle + 1, middle : middle + 1]

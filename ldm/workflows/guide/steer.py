"""Guidance by attention for a request: words to places, places to energies, energies to changes before each step."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ldm.control import Excite, Goal, Layout, Sites, by_resolution, excite_sites, layout_sites, sites
from ldm.models.diffusion.loop import Before
from ldm.models.diffusion.steering import Slope, SteerExcite, SteerLayout
from ldm.util import UserError
from ldm.workflows.guide.places import Place, encoder_of, end_of, nouns, places
from ldm.workflows.guide.reading import Guide
from ldm.workflows.guide.regions import Regions, region_settings
from ldm.workflows.guide.wishes import Wish
from ldm.workflows.inversion.invert import unet_of
from ldm.workflows.prompts import read_prompt

log = logging.getLogger(__name__)

CUT_AT_END = ("openclip",)  # families whose padding is not looked at like words; see Attend-and-Excite's own code


@dataclass(frozen=True)
class Steering:
    """What is done to one batch: the changes of its walk, which keep how each picture went.

    Attributes:
        changes: name -> what changes the latent before a step.
    """

    changes: Mapping[str, SteerLayout | SteerExcite] = field(default_factory=dict)

    @property
    def before(self) -> list[Before]:
        """What the loop takes."""
        return list(self.changes.values())

    def about(self, row: int) -> dict[str, list[list[float]]]:
        """For a picture's parameters: step and energy at each pass, by the name of the change."""
        losses = {f"{name}_loss": change.losses.get(row, []) for name, change in self.changes.items()}
        return {name: [[step, round(loss, 5)] for step, loss in passes] for name, passes in losses.items()}


@dataclass(frozen=True)
class Steered:
    """The guidance of a request on its model, with every word of every prompt found.

    Attributes:
        goals, words, stops: for each prompt; see ``Layout`` and ``Excite``.
        regions: the boxes, where they are made as regions; then there are no goals.
    """

    guide: Guide
    unet: Any
    goals: Mapping[str, list[Goal]]
    words: Mapping[str, list[Place]]
    stops: Mapping[str, int | None]
    layout_sites: Sites | None
    excite_sites: Sites | None
    regions: Regions | None = None

    def on(self, model: Any, condition: Any, prompts: Sequence[str], steps: int) -> Steering:
        """For a batch of prompts under its condition, in a walk of so many steps."""
        changes: dict[str, SteerLayout | SteerExcite] = {}
        if self.layout_sites is not None:
            layout = Layout([self.goals[prompt] for prompt in prompts], self.layout_sites)
            changes["layout"] = SteerLayout(Slope(model, self.unet, condition, layout), steps, self.guide.layout)
        if self.excite_sites is not None:
            stops = [self.stops[prompt] for prompt in prompts]
            excite = Excite([self.words[prompt] for prompt in prompts], self.excite_sites, stops)
            changes["excite"] = SteerExcite(Slope(model, self.unet, condition, excite), steps, self.guide.excite)
        return Steering(changes)

    def wishes_of(self, prompt: str) -> list[Wish]:
        """The words with their places that a prompt has."""
        if self.regions is not None:
            return list(self.guide.wishes)
        regions = [goal.region for goal in self.goals[prompt]]
        return [wish for wish in self.guide.wishes if any(wish.region is region for region in regions)]

    def about(self, model: Any, prompt: str) -> dict[str, Any]:
        """What was asked for, for the parameters of a prompt's picture."""
        asked: dict[str, Any] = {} if self.regions is None else self.regions.about(model, prompt)
        if self.guide.wishes:
            asked["boxes"] = {wish.word: wish.said for wish in self.guide.wishes}
        if self.layout_sites is not None:
            settings = self.guide.layout
            asked["layout"] = [settings.scale, settings.threshold, settings.iterations, settings.until]
        if self.excite_sites is not None:
            words = self.guide.words
            asked["excite"] = list(words) if words else "auto"
            asked["excite_settings"] = [self.guide.excite.scale, self.guide.excite.until]
        return asked


def steered(
    guide: Guide, model: Any, prompts: Sequence[str], size: tuple[int, int], inference: Mapping[str, Any] | None = None
) -> Steered:
    """Guidance for the prompts of a request, for latents of (height, width); boxes that are small are said.

    Learned words must be on the model already.

    Args:
        inference: what the model's YAML says under that name.

    Raises:
        UserError: a word is in no prompt, the network has no such layers, or the model reads no text.
    """
    unet = unet_of(model)
    texts = {prompt: read_prompt(model, prompt).text for prompt in prompts}
    settings = region_settings(guide.regions, inference or {}) if guide.wishes else None
    regions = None if settings is None else Regions.of(guide, settings)
    pulled = guide.wishes if regions is None else ()
    goals = _found(model, texts, [wish.word for wish in pulled])
    asked = guide.words
    words = {prompt: nouns(model, text) if asked == () else list(asked or ()) for prompt, text in texts.items()}
    every = list(dict.fromkeys(word for chosen in words.values() for word in chosen))
    found = _found(model, texts, every)
    wanted = {wish.word: wish for wish in pulled}
    layers = None if not pulled else _layout_layers(unet, guide.layers)
    if layers is not None:
        _say_small(pulled, unet, layers, size)
    return Steered(
        guide,
        unet,
        {
            prompt: [
                Goal(tuple(itertools.chain.from_iterable(stands)), wanted[word].region)
                for word, stands in goals[prompt].items()
            ]
            for prompt in texts
        },
        {prompt: [place for word in words[prompt] for place in found[prompt].get(word, [])] for prompt in texts},
        {
            prompt: end_of(model, text) if encoder_of(model).family in CUT_AT_END else None
            for prompt, text in texts.items()
        },
        layers,
        None if asked is None else _excite_layers(unet, guide.factor),
        regions,
    )


def _found(model: Any, texts: Mapping[str, str], words: Sequence[str]) -> dict[str, dict[str, list[Place]]]:
    """Prompt -> word -> where it stands in its text; of several prompts some may lack a word, but not all."""
    found: dict[str, dict[str, list[Place]]] = {prompt: {} for prompt in texts}
    for word in words:
        lacking: UserError | None = None
        for prompt, text in texts.items():
            try:
                found[prompt][word] = places(model, text, word)
            except UserError as error:
                lacking = error
        if lacking is not None and not any(word in by_word for by_word in found.values()):
            raise lacking
    return found


def _layout_layers(unet: Any, pattern: str | None) -> Sites:
    return layout_sites(unet) if pattern is None else sites(unet, pattern, "cross")


def _excite_layers(unet: Any, factor: int | None) -> Sites:
    if factor is None:
        return excite_sites(unet)
    levels = by_resolution(unet)
    if factor not in levels:
        raise UserError(f"--excite_factor {factor}: this network has cross-attention at {', '.join(map(str, levels))}")
    return levels[factor]


def _say_small(wishes: Sequence[Wish], unet: Any, layers: Sites, size: tuple[int, int]) -> None:
    """Warn of boxes that are smaller than a cell of the smallest map."""
    factor = max(factor for factor, its in by_resolution(unet).items() if set(its) & set(layers))
    grid = (-(-size[0] // factor), -(-size[1] // factor))
    for wish in wishes:
        if wish.region.is_small(grid):
            log.warning(
                "what '%s' is given (%s) is smaller than a cell of the %dx%d map: one cell stands for it there",
                wish.word, wish.said, grid[1], grid[0],
            )  # fmt: skip

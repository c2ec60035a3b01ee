"""What a restyling run has to make: pairs with their pictures, masks and recipes, and all that a result depends on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm.pictures.sizing import Picture, look_at, open_mask
from ldm.util import UserError
from ldm.workflows.record import tensor_hash
from ldm.workflows.restyle.pairs import Pair
from ldm.workflows.restyle.plan import StyleIDOptions
from ldm.workflows.restyle.recipe import Recipe, Settled
from ldm.workflows.restyle.setting import Setting

log = logging.getLogger(__name__)

SAID = 5  # problems that are named in full


@dataclass(frozen=True, eq=False)
class Job:
    """A pair with all that its result depends on."""

    pair: Pair
    content: Picture
    styles: tuple[Picture, ...]
    masks: Tensor | None  # [styles, H, W]
    recipe: Settled
    parameters: dict[str, Any]

    @property
    def pictures(self) -> list[Picture]:
        """The content first, then its styles."""
        return [self.content, *self.styles]

    @property
    def mixed(self) -> bool:
        """Whether attention is shared between content and styles."""
        return self.masks is not None or len(self.styles) > 1

    def goes_with(self, other: Job) -> bool:
        """Whether both can be made in one batch."""
        return (
            self.content.size == other.content.size
            and [style.sha256 for style in self.styles] == [style.sha256 for style in other.styles]
            and self.recipe == other.recipe
            and (self.masks is None) == (other.masks is None)
        )


def make_jobs(options: StyleIDOptions, setting: Setting, pairs: Sequence[Pair]) -> tuple[list[Job], list[str]]:
    """Every pair with its pictures, masks and parameters; and one sentence for each pair that cannot be made.

    Raises:
        UserError: none can be made.
    """
    looked: dict[Path, Picture | UserError] = {}

    def picture(path: Path) -> Picture:
        if path not in looked:
            try:
                looked[path] = look_at(path, setting.sizing)
            except UserError as error:
                looked[path] = error
        found = looked[path]
        if isinstance(found, UserError):
            raise found
        return found

    jobs, problems = [], []
    for pair in pairs:
        try:
            content, styles = picture(pair.content), tuple(picture(style) for style in pair.styles)
            masks = open_masks(options, pair, content)
        except UserError as error:
            log.warning("left out %s: %s", pair.name, error)
            problems.append(str(error))
            continue
        jobs.append(make_job(options, setting, pair, content, styles, masks))
    problems = list(dict.fromkeys(problems))
    if problems and not jobs:
        raise UserError(in_short(problems))
    return jobs, problems


def make_job(
    options: StyleIDOptions,
    setting: Setting,
    pair: Pair,
    content: Picture,
    styles: tuple[Picture, ...],
    masks: Tensor | None,
) -> Job:
    """A job with its recipe settled, and all that its result depends on for its record."""
    mixed = masks is not None or len(styles) > 1
    recipe = Recipe.of(options).settled(mixed)
    recipe = replace(recipe, attn_layer=setting.blocks, start_step=setting.steps)
    about_masks = {"outside", "feather"} if masks is None else set()
    parameters = {
        **{name: value for name, value in recipe.parameters().items() if name not in about_masks},
        **setting.about(),
        "mixed": mixed,
        "width": content.size[1],
        "height": content.size[0],
        "content": content.sha256,
        "styles": [style.sha256 for style in styles],
        "masks": None if masks is None else tensor_hash(masks),
    }
    return Job(pair, content, styles, masks, recipe, parameters)


def open_masks(options: StyleIDOptions, pair: Pair, content: Picture) -> Tensor | None:
    """The masks [styles, H, W] of a pair at its content's size; everything where --pi or --mix are given without any.

    Raises:
        UserError: see ``open_mask``.
    """
    if pair.masks:
        return torch.stack([open_mask(path, content, content.sizing.crop is not None) for path in pair.masks])
    if len(pair.styles) == 1 and (options.pi is not None or options.mix is not None):
        return torch.ones(1, *content.size)
    return None


def in_short(problems: Sequence[str]) -> str:
    """Problems in one sentence, the first ones in full."""
    rest = len(problems) - SAID
    return "; ".join(problems[:SAID]) + (f"; and {rest} more" if rest > 0 else "")

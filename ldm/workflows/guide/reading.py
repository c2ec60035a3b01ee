"""The options of guidance by attention, read and checked before any model is there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from PIL import Image

from ldm.control.shares import check_share
from ldm.models.diffusion.steering import ExciteSettings, LayoutSettings
from ldm.pictures.images import load_image
from ldm.util import UserError
from ldm.workflows.guide.options import ALL_NOUNS, REGIONS, VIEWS, WAYS, GuideOptions
from ldm.workflows.guide.wishes import Wish, read_wishes


@dataclass(frozen=True)
class RegionWishes:
    """What is asked for of regions; None: as the model's YAML says, else as is usual.

    Attributes:
        way: gradient or regions.
        view: whole or centred.
        background: the prompt of what is outside of all boxes.
        bootstrap: the share of the steps in which a region is started by itself.

    Raises:
        UserError: a value that means nothing.
    """

    way: str | None = None
    view: str | None = None
    background: str | None = None
    bootstrap: float | None = None

    def __post_init__(self) -> None:
        for name, value, known in (("layout", self.way, WAYS), ("layout_view", self.view, VIEWS)):
            if value is not None and value not in known:
                raise UserError(f"--{name} is {' or '.join(known)}, got '{value}'")
        if self.bootstrap is not None:
            check_share("--layout_bootstrap", self.bootstrap)


@dataclass(frozen=True)
class Guide:
    """What is asked for, read and checked.

    Attributes:
        wishes: words and where they are wanted.
        words: that must not be neglected; None where none, empty where all nouns of a prompt are meant.
    """

    wishes: tuple[Wish, ...]
    words: tuple[str, ...] | None
    layout: LayoutSettings
    excite: ExciteSettings
    layers: str | None = None
    factor: int | None = None
    regions: RegionWishes = field(default_factory=RegionWishes)


def read_guide(options: GuideOptions) -> Guide | None:
    """The guidance that options ask for; None without any.

    Raises:
        UserError: boxes or settings that mean nothing, or ``excite`` without a word.
    """
    regions = RegionWishes(
        options.layout, options.layout_view, options.layout_background, options.layout_bootstrap
    )
    if options.layout == REGIONS and options.boxes is None:
        raise UserError("--layout regions needs --boxes, which say what is where")
    if not options.is_guided:
        return None
    wishes = [] if options.boxes is None else read_wishes(options.boxes)
    layout = LayoutSettings(
        options.layout_scale, options.layout_threshold, options.layout_iterations, options.layout_until
    )
    excite = ExciteSettings(options.excite_scale, until=options.excite_until)
    words = None if options.excite is None else _words(options.excite)
    return Guide(tuple(wishes), words, layout, excite, options.layout_layers, options.excite_factor, regions)


@dataclass(frozen=True)
class Edit:
    """A second prompt, read and checked.

    Attributes:
        prompt: None: the first one, with other weights.
        weights: word of the second prompt -> factor of its maps.
        blend: the words outside of whose maps nothing changes; None: all may, empty: those that differ.
        cross_share, self_share: of the steps, in which attention is that of the first prompt.
        photo: what the first prompt describes; None: a new picture is made.
    """

    prompt: str | None
    weights: Mapping[str, float] = field(default_factory=dict)
    blend: tuple[str, ...] | None = None
    cross_share: float = 0.8
    self_share: float = 0.4
    photo: Image.Image | None = None

    def second(self, prompt: str) -> str:
        """The prompt of the edited picture."""
        return prompt if self.prompt is None else self.prompt

    def about(self) -> dict[str, object]:
        """For a picture's parameters."""
        asked: dict[str, object] = {"edit_cross": self.cross_share, "edit_self": self.self_share}
        asked |= {} if self.prompt is None else {"edit": self.prompt}
        asked |= {"reweight": dict(self.weights)} if self.weights else {}
        return asked if self.blend is None else asked | {"blend": list(self.blend) or ALL_NOUNS}


def read_edit(options: GuideOptions) -> Edit | None:
    """The edit that options ask for; None without any.

    Raises:
        UserError: shares or weights that mean nothing, a photograph that cannot be read or without an edit, or an edit
            together with boxes or neglected words.
    """
    for name in ("edit_cross", "edit_self"):
        if not 0 <= getattr(options, name) <= 1:
            raise UserError(f"--{name} is a share of the steps from 0 to 1, got {getattr(options, name)}")
    if not options.is_edited:
        given = [name for name in ("edit_photo", "blend") if getattr(options, name) is not None]
        if given:
            raise UserError(f"--{given[0]} needs --edit, the prompt of the edited picture, or --reweight")
        return None
    if options.is_guided:
        raise UserError("--edit or --reweight and --boxes or --excite do not go together; leave one of them out")
    blend = None if options.blend is None else _words(options.blend)
    photo = None if options.edit_photo is None else load_image(options.edit_photo)
    return Edit(options.edit, _weights(options.reweight), blend, options.edit_cross, options.edit_self, photo)


def _weights(given: str | Mapping[str, float] | None) -> dict[str, float]:
    """Word -> factor, of "striped:2, blue:0.5"."""
    if given is None:
        return {}
    parts = given.items() if isinstance(given, Mapping) else [one.rpartition(":")[::2] for one in given.split(",")]
    found: dict[str, float] = {}
    for word, factor in parts:
        try:
            number = float(factor)
        except ValueError:
            number = math.nan
        if not word.strip() or not math.isfinite(number):
            raise UserError(f"--reweight takes words with a factor, such as 'striped:2, blue:0.5', got '{given}'")
        found[word.strip()] = number
    return found


def _words(given: str | Sequence[str]) -> tuple[str, ...]:
    if given == ALL_NOUNS:
        return ()
    listed = given.split(",") if isinstance(given, str) else given
    words = tuple(word.strip() for word in listed if word.strip())
    if not words:
        raise UserError("--excite and --blend take words of the prompt, such as 'circle, star', or nothing at all")
    return words

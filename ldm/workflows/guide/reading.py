"""The options of guidance by attention, read and checked before any model is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ldm.models.diffusion.steering import ExciteSettings, LayoutSettings
from ldm.util import UserError
from ldm.workflows.guide.options import ALL_NOUNS, GuideOptions
from ldm.workflows.guide.wishes import Wish, read_wishes


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


def read_guide(options: GuideOptions) -> Guide | None:
    """The guidance that options ask for; None without any.

    Raises:
        UserError: boxes or settings that mean nothing, or ``excite`` without a word.
    """
    if not options.is_guided:
        return None
    wishes = [] if options.boxes is None else read_wishes(options.boxes)
    layout = LayoutSettings(
        options.layout_scale, options.layout_threshold, options.layout_iterations, options.layout_until
    )
    excite = ExciteSettings(options.excite_scale, until=options.excite_until)
    words = None if options.excite is None else _words(options.excite)
    return Guide(tuple(wishes), words, layout, excite, options.layout_layers, options.excite_factor)


def _words(given: str | Sequence[str]) -> tuple[str, ...]:
    if given == ALL_NOUNS:
        return ()
    listed = given.split(",") if isinstance(given, str) else given
    words = tuple(word.strip() for word in listed if word.strip())
    if not words:
        raise UserError("--excite takes words of the prompt, such as 'circle, star', or nothing: then all nouns")
    return words

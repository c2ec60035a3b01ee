"""What somebody asks of attention: words in boxes, words that must not be neglected, and how hard to push."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ldm.workflows.options import option

ALL_NOUNS = "auto"


@dataclass
class GuideOptions:
    """Guidance by attention; without ``boxes`` and ``excite`` there is none. See docs/guidance.md."""

    boxes: str | os.PathLike[str] | Mapping[str, Any] | None = option(  # noqa: RUF009 a field
        None, "where words are wanted: 'a red circle: 0.05 0.3 0.45 0.7; star: mask.png', or a JSON file",
        metavar="BOXES",
    )  # fmt: skip
    layout_scale: float = option(30.0, "how hard boxes pull (30)", type=float, metavar="S")
    layout_threshold: float = option(0.2, "a picture this near to its boxes is left alone (0.2)", type=float)
    layout_iterations: int = option(5, "the most pulls in a step (5)", type=int, metavar="N")
    layout_until: float = option(0.2, "the share of the steps in which boxes pull (0.2)", type=float, metavar="SHARE")
    layout_layers: str | None = option(
        None, "whose attention counts, as a pattern of blocks (the middle and the decoder's first with attention)",
        metavar="PATTERN",
    )  # fmt: skip
    excite: str | Sequence[str] | None = option(
        None, "words that must be in the picture, parted by commas; alone: all that may name a thing",
        nargs="?", const=ALL_NOUNS, metavar="WORDS",
    )  # fmt: skip
    excite_scale: float = option(20.0, "how hard neglected words are pushed (20)", type=float, metavar="S")
    excite_until: float = option(0.5, "the share of the steps in which they are (0.5)", type=float, metavar="SHARE")
    excite_factor: int | None = option(
        None, "the size of the latent against that of the attention's maps which count (4, or what there is)", type=int,
    )  # fmt: skip

    @property
    def is_guided(self) -> bool:
        """Whether attention is to be guided at all."""
        return self.boxes is not None or self.excite is not None

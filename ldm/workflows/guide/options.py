"""What somebody asks of attention: words in boxes, words that must not be neglected, edits of a prompt."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ldm.workflows.options import option

ALL_NOUNS = "auto"
GRADIENT, REGIONS = WAYS = ("gradient", "regions")
WHOLE, CENTRED = VIEWS = ("whole", "centred")


@dataclass
class GuideOptions:
    """Guidance by attention; without ``boxes`` and ``excite`` there is none. See docs/guidance.md."""

    boxes: str | os.PathLike[str] | Mapping[str, Any] | None = option(  # noqa: RUF009 a field
        None, "where words are wanted: 'a red circle: 0.05 0.3 0.45 0.7; star: mask.png', or a JSON file",
        metavar="BOXES",
    )  # fmt: skip
    layout: str | None = option(
        None, "how boxes place things: by the gradient of attention, or as regions with a prompt each (as the model's "
        "YAML says, else gradient)", choices=WAYS,
    )  # fmt: skip
    layout_view: str | None = option(
        None, "with regions: what each sees, the whole picture, or the picture with its box in the middle (as the YAML "
        "says, else whole)", choices=VIEWS,
    )  # fmt: skip
    layout_background: str | None = option(
        None, "with regions: what is outside of the boxes (the prompt without their words; centred: as the nearest "
        "region has it)", metavar="PROMPT",
    )  # fmt: skip
    layout_bootstrap: float | None = option(
        None, "with regions: the share of the steps in which each sees a flat colour around its box (0.2; centred: 0)",
        type=float, metavar="SHARE",
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

    edit: str | None = option(None, "another prompt: the same picture is made for it as well", metavar="PROMPT")
    edit_photo: str | None = option(
        None, "a photograph that the prompt describes, to be edited in place of a new picture", metavar="FILE"
    )
    reweight: str | Mapping[str, float] | None = option(
        None, "how much words count in the edited picture, such as 'striped:2, blue:0.5'", metavar="WORDS"
    )
    blend: str | Sequence[str] | None = option(
        None, "change the picture only where these words are; alone: where those are that differ",
        nargs="?", const=ALL_NOUNS, metavar="WORDS",
    )  # fmt: skip
    edit_cross: float = option(
        0.8, "the share of the steps in which words look where they did (0.8)", type=float, metavar="SHARE"
    )
    edit_self: float = option(
        0.4, "the share of the steps in which shapes stay where they were (0.4)", type=float, metavar="SHARE"
    )

    @property
    def is_edited(self) -> bool:
        """Whether a picture is to be made for a second prompt."""
        return self.edit is not None or self.reweight is not None

    @property
    def is_guided(self) -> bool:
        """Whether attention is to be guided at all."""
        return self.boxes is not None or self.excite is not None

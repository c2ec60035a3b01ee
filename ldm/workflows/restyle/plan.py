"""What a restyling run is asked to do, and the pairs that it names."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ldm.pictures.film import FORMATS
from ldm.shipped import SAMPLES
from ldm.util import UserError
from ldm.workflows.restyle.pairs import Pair, make_pairs, pictures_at, read_pairs, shard
from ldm.workflows.restyle.recipe import DETAIL_MASKED, GAMMA_MASKED, T_MASKED, Recipe

NO_MASKS = ("none",)
SAID = 3  # contents whose masks are named

log = logging.getLogger(__name__)


@dataclass
class StyleIDOptions(Recipe):
    """What to restyle, with what, and where to put it; how is said by the fields of ``Recipe``. See docs/styleid.md."""

    cnt: str | None = None  # content: a picture or a folder; None: the bundled samples
    sty: str | None = None  # style: a picture or a folder
    H: int | None = None  # with a height or width the middle of the picture is cut out at that size
    W: int | None = None
    precomputed: str = "precomputed_feats"  # folder of inversions; "": none is kept
    model_config: str | None = None
    ckpt: str | None = None  # None: the small model of this repository
    lora: Sequence[str] | None = None  # LoRA files: FILE, FILE=0.8, FILE=0.8@output_blocks
    lora_dora: str = "interpolate"  # how scales other than 1 act with DoRA
    precision: str = "autocast"  # autocast (mixed on a GPU, but for the inversion), full, bf16, fp16
    output_path: str = "outputs/styleid"

    cnt_prompt: str | Sequence[str] | None = None  # contents to generate, in the place of pictures; see prompted.py
    cnt_prompts: str | None = None  # a file with a prompt a line, or a folder of such files
    scale: float | None = None  # guidance of generated contents; None: the model's
    pairs: str | None = None  # a file: content, style, style, ... a line
    device: str | None = None  # None: a GPU if there is one
    features: str = "memory"  # memory, disk or replay
    feature_gb: float = 2.0  # of features that are kept in memory besides those in use
    batch: int = 1  # contents of one style that are made together
    crop: bool = False  # cut out the middle, a square of `longest`
    longest: int | None = None  # pixels of the longer side, when no size is given; None: 512, or the model's if larger
    masks: Sequence[str] | None = None  # of the contents; None: those beside each; ["none"]: none
    no_sheet: bool = False  # no contact sheet
    film: bool = False  # a folder of contents is one of films, or of one film's frames
    steady: float | None = None  # how far what does not move in a film stays as it was; None: 1
    num_frames: int | None = None  # of a film, the first ones; None: all
    fps: float | None = None  # of the result; None: the film's, or 8 of a folder of frames
    formats: Sequence[str] = FORMATS  # of films
    progress: bool = True

    @property
    def prompted(self) -> bool:
        """Whether contents are generated."""
        return self.cnt_prompt is not None or self.cnt_prompts is not None


def find_pairs(options: StyleIDOptions, environment: Mapping[str, str] | None = None) -> tuple[list[Pair], list[Pair]]:
    """All pairs of a run, and the share of this process, as ``environment`` says (see ``shard``).

    Raises:
        UserError: pictures or masks are missing, or do not fit together.
    """
    masks = options.masks
    files = None if masks is None else [] if tuple(masks) == NO_MASKS else [Path(mask) for mask in masks]
    given = [Path(place) for place in (options.cnt, options.sty) if place is not None]
    if options.pairs is not None:
        everything = read_pairs(options.pairs, given, files)
        return everything, shard(everything, environment or {})
    if (options.cnt is None) != (options.sty is None):
        raise UserError("--cnt and --sty belong together: give both, or --pairs, or none of them for the samples")
    contents = pictures_at(SAMPLES / "cnt" if options.cnt is None else options.cnt, "content")
    styles = pictures_at(SAMPLES / "sty" if options.sty is None else options.sty, "style")
    everything = make_pairs(contents, styles, files)
    return everything, shard(everything, environment or {})


def say_masks(options: StyleIDOptions, pairs: Sequence[Pair]) -> None:
    """Log which masks were found beside contents, since they change what is made and how."""
    masked = {pair.content: pair.masks for pair in pairs if pair.masks}
    if options.masks is not None or not masked:
        return
    named = [f"{content.name} ({', '.join(mask.name for mask in masks)})" for content, masks in masked.items()]
    rest = f" and of {len(named) - SAID} more" if len(named) > SAID else ""
    usual = {"gamma": GAMMA_MASKED, "T": T_MASKED, "detail": DETAIL_MASKED}
    left = ", ".join(f"{name} is {value:g}" for name, value in usual.items() if getattr(options, name) is None)
    log.info(
        "using the masks that lie beside %s%s%s; --no_masks leaves them out",
        ", ".join(named[:SAID]), rest, f", and with masks {left}" if left else "",
    )  # fmt: skip

"""What a restyling run is asked to do, checked, and the pairs that it names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ldm.control.inject import check_gamma, check_temperature
from ldm.control.mix import WAYS
from ldm.shipped import SAMPLES
from ldm.util import UserError
from ldm.workflows.inversion.cache import STRATEGIES
from ldm.workflows.restyle.pairs import Pair, make_pairs, pictures_at, read_pairs
from ldm.workflows.restyle.recipe import GAMMA, T_ONE, Recipe
from ldm.workflows.seeds import settled_seed

NO_MASKS = ("none",)


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
    precision: str = "autocast"  # autocast (mixed on a GPU, but for the inversion), full, bf16, fp16
    output_path: str = "output"

    pairs: str | None = None  # a file: content, style, style, ... a line
    device: str | None = None  # None: a GPU if there is one
    features: str = "memory"  # memory, disk or replay
    feature_gb: float = 2.0  # of features that are kept in memory besides those in use
    batch: int = 1  # contents of one style that are made together
    crop: bool = False  # cut out the middle, a square of `longest`
    longest: int | None = None  # pixels of the longer side, when no size is given; None: 512, or the model's if larger
    masks: Sequence[str] | None = None  # of the contents; None: those beside each; ["none"]: none
    no_sheet: bool = False  # no contact sheet
    progress: bool = True


def checked(options: StyleIDOptions) -> StyleIDOptions:
    """The options, with what can be refused before a model is loaded refused, and a seed drawn where it is -1.

    Raises:
        UserError: a value beyond its range.
    """
    check_gamma(GAMMA if options.gamma is None else options.gamma)
    check_temperature(T_ONE if options.T is None else options.T)
    for gamma in options.gammas or ():
        check_gamma(gamma)
    for name in ("ddim_inv_steps", "save_feat_steps", "batch"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} must be at least 1, got {getattr(options, name)}")
    if options.start_step is not None and options.start_step < 0:
        raise UserError(f"--start_step must not be negative, got {options.start_step}")
    if not 0 <= options.ddim_eta < float("inf"):
        raise UserError(f"--ddim_eta must not be negative, got {options.ddim_eta}")
    if options.pi is not None and not 0 <= options.pi <= 1:
        raise UserError(f"--pi, the styles' share inside their masks, must lie between 0 and 1, got {options.pi}")
    if options.detail is not None and not 0 <= options.detail < float("inf"):
        raise UserError(f"--detail must be a radius above 0, or 0 for none, got {options.detail}")
    if options.mix is not None and options.mix not in WAYS:
        raise UserError(f"--mix must be {' or '.join(WAYS)}, got '{options.mix}'")
    if options.features not in STRATEGIES:
        raise UserError(f"--features must be one of {', '.join(STRATEGIES)}, got '{options.features}'")
    if options.features == "disk" and not options.precomputed:
        raise UserError("--features disk needs a folder: --precomputed FOLDER")
    if options.longest is not None and options.longest < 1:
        raise UserError(f"--longest must be a number of pixels, got {options.longest}")
    if options.feature_gb < 0:
        raise UserError(f"--feature_gb must not be negative, got {options.feature_gb}")
    return replace(options, seed=settled_seed(options.seed or 0)) if options.ddim_eta else options


def find_pairs(options: StyleIDOptions) -> list[Pair]:
    """All pairs of a run.

    Raises:
        UserError: pictures or masks are missing, or do not fit together.
    """
    masks = options.masks
    files = None if masks is None else [] if tuple(masks) == NO_MASKS else [Path(mask) for mask in masks]
    given = [Path(place) for place in (options.cnt, options.sty) if place is not None]
    if options.pairs is not None:
        return read_pairs(options.pairs, given, files)
    if (options.cnt is None) != (options.sty is None):
        raise UserError("--cnt and --sty belong together: give both, or --pairs, or none of them for the samples")
    contents = pictures_at(SAMPLES / "cnt" if options.cnt is None else options.cnt, "content")
    styles = pictures_at(SAMPLES / "sty" if options.sty is None else options.sty, "style")
    return make_pairs(contents, styles, files)

"""What a restyling run is asked to do, checked, with nothing left open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ldm.control import Sites, late_decoder, sites
from ldm.control.inject import check_gamma, check_temperature
from ldm.control.mix import WAYS
from ldm.models.diffusion.loop import Schedule
from ldm.shipped import SAMPLES
from ldm.util import UserError
from ldm.workflows.inversion.cache import STRATEGIES
from ldm.workflows.inversion.invert import unet_of
from ldm.workflows.restyle.pairs import Pair, make_pairs, pictures_at, read_pairs
from ldm.workflows.restyle.stylise import GAMMA, GAMMA_MASKED, T_MASKED, T_ONE, executed_timesteps

PI, DETAIL_MASKED = 0.9, 0.3
NO_MASKS = ("none",)


@dataclass
class StyleIDOptions:
    """What to restyle, how, and where to put it. Up to ``without_attn_injection`` as in the original command."""

    cnt: str | None = None  # content: a picture or a folder; None: the bundled samples
    sty: str | None = None  # style: a picture or a folder
    gamma: float | None = None  # the content's share of the query; None: 0.75, with masks 0.2
    T: float | None = None  # factor on the logits; None: 1.5, with masks 2.0
    attn_layer: str | None = None  # decoder blocks, comma-separated; None: the later half, which is 6 to 11 in SD
    ddim_inv_steps: int = 50  # steps of the inversion
    save_feat_steps: int = 50  # steps of the sampling, at which features are needed
    start_step: int | None = None  # how many of the last steps are sampled; None: all but the first (49 of 50)
    ddim_eta: float = 0.0  # fresh noise in sampling
    H: int | None = None  # with a height or width the middle of the picture is cut out at that size
    W: int | None = None
    precomputed: str = "precomputed_feats"  # folder of inversions; "": none is kept
    model_config: str | None = None
    ckpt: str | None = None  # None: the small model of this repository
    precision: str = "autocast"  # autocast (mixed on a GPU, but for the inversion), full, bf16, fp16
    output_path: str = "output"
    without_init_adain: bool = False
    without_attn_injection: bool = False

    pairs: str | None = None  # a file: content, style, style, ... a line
    seed: int = 22  # of the fresh noise, when ddim_eta is not 0
    device: str | None = None  # None: a GPU if there is one
    features: str = "memory"  # memory, disk or replay
    feature_gb: float = 2.0  # of features that are kept in memory besides those in use
    batch: int = 1  # contents of one style that are made together
    crop: bool = False  # cut out the middle, a square of `longest`
    longest: int | None = None  # pixels of the longer side, when no size is given; None: 512, or the model's if larger
    gamma_schedule: str | None = None  # gammas, comma-separated, from the first step to the last
    detail: float | None = None  # radius of the high-pass filter; 0: none; None: with masks 0.3
    masks: Sequence[str] | None = None  # of the contents; None: those beside each; ["none"]: none
    pi: float | None = None  # the styles' share inside masks; None: 0.9
    mix: str | None = None  # mass or competition; None: mass
    sharpen: bool = False  # mixed logits, for each head
    keep_color: bool = False
    no_sheet: bool = False  # no contact sheet
    progress: bool = True


@dataclass(frozen=True)
class Recipe:
    """How one result is made; what is written beside it."""

    gamma: float
    T: float
    gamma_schedule: tuple[float, ...] | None
    mixed: bool  # attention shared between content and styles, otherwise StyleID's injection
    pi: float
    mix: str
    sharpen: bool
    detail: float | None
    attn_layer: tuple[int, ...]
    ddim_inv_steps: int
    save_feat_steps: int
    start_step: int
    ddim_eta: float
    seed: int | None  # None where it does not matter
    init_adain: bool
    attn_injection: bool
    keep_color: bool

    def parameters(self) -> dict[str, Any]:
        return asdict(self)


def check(options: StyleIDOptions) -> None:
    """Refuse what can be refused before a model is loaded.

    Raises:
        UserError: a value beyond its range.
    """
    check_gamma(GAMMA if options.gamma is None else options.gamma)
    check_temperature(T_ONE if options.T is None else options.T)
    for gamma in gammas(options) or ():
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


def gammas(options: StyleIDOptions) -> tuple[float, ...] | None:
    """The numbers of ``gamma_schedule``.

    Raises:
        UserError: they are no numbers.
    """
    if options.gamma_schedule is None:
        return None
    try:
        return tuple(float(value) for value in options.gamma_schedule.split(","))
    except ValueError as error:
        raise UserError(f"--gamma_schedule takes numbers like 0.9,0.5, got '{options.gamma_schedule}'") from error


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


def attention_sites(model: Any, layers: str | None) -> Sites:
    """Self-attention of the decoder blocks that are named; of its later half, when none are.

    Raises:
        UserError: there is no such block, or it has no self-attention.
    """
    if layers is not None:
        numbers = [part.strip() for part in layers.split(",")]
        if not all(number.isdecimal() for number in numbers):
            raise UserError(f"--attn_layer takes numbers of decoder blocks like 6,7,8, got '{layers}'")
        return sites(unet_of(model), numbers)
    return sites(unet_of(model), late_decoder(unet_of(model)))


def detail_sites(model: Any) -> Sites:
    """The last residual blocks of the later half of the decoder: blocks 6 to 11 of Stable Diffusion."""
    return sites(unet_of(model), late_decoder(unet_of(model)), kind="residual")


def block_number(name: str) -> int:
    return int(name.split(".")[1])


def sampled_timesteps(options: StyleIDOptions, schedule: Schedule) -> list[float]:
    """The timesteps at which sampling asks the network, the noisiest first.

    Raises:
        UserError: numbers of steps that the schedule does not have, or that do not fit each other.
    """
    start = options.start_step
    if start is not None:
        start = min(start, len(executed_timesteps(schedule, options.save_feat_steps)) + 1)
    timesteps = executed_timesteps(schedule, options.save_feat_steps, start)
    visited = {level.told for level in schedule.upwards(options.ddim_inv_steps)[:-1]}
    if not visited.issuperset(timesteps):
        raise UserError(
            f"--save_feat_steps {options.save_feat_steps} does not fit --ddim_inv_steps {options.ddim_inv_steps}: "
            "sampling would need features of timesteps that the inversion does not visit"
        )
    return timesteps


def recipe(options: StyleIDOptions, pair: Pair, layers: Sites, sampled: int) -> Recipe:
    """What the options mean for one pair, of which so many steps are sampled: defaults of StyleID, or for masks."""
    mixed = bool(pair.masks) or len(pair.styles) > 1 or options.pi is not None or options.mix is not None
    detail = options.detail if options.detail is not None else DETAIL_MASKED if mixed else 0.0
    return Recipe(
        gamma=(GAMMA_MASKED if mixed else GAMMA) if options.gamma is None else options.gamma,
        T=(T_MASKED if mixed else T_ONE) if options.T is None else options.T,
        gamma_schedule=gammas(options),
        mixed=mixed,
        pi=PI if options.pi is None else options.pi,
        mix=options.mix or WAYS[0],
        sharpen=options.sharpen,
        detail=detail or None,
        attn_layer=tuple(dict.fromkeys(block_number(name) for name in layers)),
        ddim_inv_steps=options.ddim_inv_steps,
        save_feat_steps=options.save_feat_steps,
        start_step=sampled,
        ddim_eta=options.ddim_eta,
        seed=options.seed if options.ddim_eta else None,
        init_adain=not options.without_init_adain,
        attn_injection=not options.without_attn_injection,
        keep_color=options.keep_color,
    )

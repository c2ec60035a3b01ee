"""What can be refused of a restyling run before a model is loaded."""

from __future__ import annotations

from dataclasses import replace

from ldm.control import adaptive, shared
from ldm.control.inject import check_gamma, check_temperature
from ldm.control.mix import WAYS
from ldm.control.shares import check_share
from ldm.seeds import settled_seed
from ldm.util import UserError, writable_folder
from ldm.workflows.film_files import check_formats
from ldm.workflows.inversion.cache import STRATEGIES
from ldm.workflows.plan import checked_settle
from ldm.workflows.restyle import steady
from ldm.workflows.restyle.plan import StyleIDOptions
from ldm.workflows.restyle.recipe import DDIM, EXACT, FIXED_POINT, FREE, GAMMA, INVERSIONS, KEEP, T_ONE


def checked(options: StyleIDOptions) -> StyleIDOptions:
    """The options, with what can be refused before a model is loaded refused, and a seed drawn where it is -1.

    Raises:
        UserError: a value beyond its range.
    """
    writable_folder(options.output_path, "--outdir")
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
    if options.inversion is not None and options.inversion not in INVERSIONS:
        raise UserError(f"--inversion must be {' or '.join(INVERSIONS)}, got '{options.inversion}'")
    check_variations(options)
    if options.outside not in (KEEP, FREE):
        raise UserError(f"--outside must be {KEEP} or {FREE}, got '{options.outside}'")
    if not 0 <= options.feather < float("inf"):
        raise UserError(f"--feather must be a number of pixels, got {options.feather}")
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
    if options.prompted:
        options = checked_prompts(options)
    check_film_numbers(options)
    draws = options.ddim_eta or options.settle
    return replace(options, seed=settled_seed(options.seed or 0)) if draws else options


def check_film_numbers(options: StyleIDOptions) -> None:
    """Refuse what no film is made with.

    Raises:
        UserError: see there.
    """
    check_share(steady.WHAT, options.steady or 0.0)
    check_formats(options.formats)
    if options.num_frames is not None and options.num_frames < 2:
        raise UserError(f"--num_frames must be 2 or more, got {options.num_frames}")
    if options.fps is not None and not 0 < options.fps <= 120:
        raise UserError(f"--fps must be a number above 0, 120 at most, got {options.fps}")


def check_variations(options: StyleIDOptions) -> None:
    """Refuse what the ways beyond StyleID do not take, alone or together.

    Raises:
        UserError: see there.
    """
    check_share(adaptive.WHAT, options.adaptive)
    check_share(shared.WHAT, options.share)
    for flag, share in (("--adain_deviation", options.adain_deviation), ("--adain_flat", options.adain_flat)):
        if share is not None:
            check_share(flag, share)
            if options.without_init_adain:
                raise UserError(f"--without_init_adain leaves out what {flag} is about: give one of them")
    if not 0 <= options.low_frequencies < float("inf"):
        raise UserError(f"--low_frequencies must be a factor from 0, got {options.low_frequencies}")
    if options.keep_flat is not None:
        check_share("--keep_flat", options.keep_flat)
    checked_settle(options.settle or 0)
    if options.distill < 0:
        raise UserError(f"--distill must be a number of times, got {options.distill}")
    if not 0 < options.negative_scale < float("inf"):
        raise UserError(f"--negative_scale must be a number above 0, got {options.negative_scale}")
    if options.share and options.adaptive:
        raise UserError("--share and --adaptive change the same attention in two ways: leave one of them out")
    check_inversion(options)


def check_inversion(options: StyleIDOptions) -> None:
    """Refuse a way to invert that does not go with what else is asked for; None goes with all.

    Raises:
        UserError: it does not go with --fast, or is exact and does not go with --distill, --ddim_eta or --cnt_prompt;
            or rounds that are below 0, or not its own.
    """
    if options.inversion_rounds is not None:
        if options.inversion not in (None, FIXED_POINT) or options.fast:
            raise UserError(f"--inversion_rounds is for --inversion {FIXED_POINT} only: leave it out")
        if options.inversion_rounds < 0:
            raise UserError(f"--inversion_rounds must not be negative, got {options.inversion_rounds}")
    if options.inversion in EXACT and (options.distill or options.ddim_eta):
        raise UserError(
            f"--inversion {options.inversion} is exact where nothing else moves the latent: "
            "leave out --distill and --ddim_eta, or take ddim or fixed_point"
        )
    if options.inversion in EXACT and options.prompted:
        raise UserError(
            f"--inversion {options.inversion} is for contents that are inverted; those of --cnt_prompt are not"
        )
    if options.fast and options.inversion not in (None, DDIM):
        raise UserError(f"--fast is a way of --inversion ddim; leave out --inversion {options.inversion}")


def checked_prompts(options: StyleIDOptions) -> StyleIDOptions:
    """Options for generated contents, whose whole walk is sampled again: all steps, unless told otherwise.

    Raises:
        UserError: an option that needs a picture for a content, or features that are computed beside it.
    """
    others = {"--cnt": options.cnt, "--pairs": options.pairs, "--masks": options.masks, "--pi": options.pi,
              "--mix": options.mix}  # fmt: skip
    wrong = [flag for flag, value in others.items() if value is not None]
    if wrong:
        raise UserError(f"{wrong[0]} is for contents that are pictures; --cnt_prompt makes its own")
    if options.features == "replay":
        raise UserError("--features replay is for contents that are inverted; those of --cnt_prompt are not")
    if options.start_step is not None and options.start_step < options.save_feat_steps:
        raise UserError("--start_step leaves no step out of contents that --cnt_prompt makes")
    if options.scale is not None and not 0 <= options.scale < float("inf"):
        raise UserError(f"--scale must be a number from 0, got {options.scale}")
    return replace(options, start_step=options.save_feat_steps, seed=settled_seed(options.seed or 0))

"""What can be refused of a restyling run before a model is loaded."""

from __future__ import annotations

from dataclasses import replace

from ldm.control.inject import check_gamma, check_temperature
from ldm.control.mix import WAYS
from ldm.seeds import settled_seed
from ldm.util import UserError, writable_folder
from ldm.workflows.inversion.cache import STRATEGIES
from ldm.workflows.restyle.plan import StyleIDOptions
from ldm.workflows.restyle.recipe import FREE, GAMMA, KEEP, ROUNDS, T_ONE


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
    if options.inversion not in ROUNDS:
        raise UserError(f"--inversion must be {' or '.join(ROUNDS)}, got '{options.inversion}'")
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
    return replace(options, seed=settled_seed(options.seed or 0)) if options.ddim_eta else options

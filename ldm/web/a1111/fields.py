"""The fields of a request as the web UI of AUTOMATIC1111 and its clients write them, as options of txt2img.

A field is either used, or neutral (it asks for nothing that does not happen anyway), or the answer names it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ldm.util import UserError, nearest, printable
from ldm.workflows.txt2img import Txt2ImgOptions

# their name -> ours; the first one is what we call it
SAMPLERS = {
    "DDIM": "ddim",
    "PLMS": "plms",
    "Euler": "euler",
    "Euler a": "euler_ancestral",
    "DPM++ 2M": "dpm_solver",
    "DPM++ 2S a": "dpmpp_2s_ancestral",
    "Heun": "heun",
    "LMS": "lms",
}
KARRAS = {"karras": "_karras", "automatic": "", "": ""}  # their scheduler -> the end of our sampler's name
USED: dict[str, type] = {
    "prompt": str, "negative_prompt": str, "seed": int, "steps": int, "cfg_scale": float, "width": int, "height": int,
    "batch_size": int, "n_iter": int, "sampler_name": str, "sampler_index": str, "eta": float, "save_images": bool,
    "send_images": bool, "override_settings": dict, "scheduler": str, "subseed": int, "subseed_strength": float,
    "tiling": bool, "enable_hr": bool, "hr_scale": float, "hr_second_pass_steps": int, "hr_upscaler": str,
    "denoising_strength": float,
}  # fmt: skip
# field -> values that ask for nothing
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "styles": ([],),
    "seed_resize_from_h": (0, -1),
    "seed_resize_from_w": (0, -1),
    "restore_faces": (False,),
    "s_churn": (0,),
    "s_tmin": (0,),
    "s_noise": (1,),
    "script_name": ("",),
    "script_args": ([],),
    "alwayson_scripts": ({},),
    "firstphase_width": (0,),
    "firstphase_height": (0,),
    "refiner_checkpoint": ("",),
    "disable_extra_networks": (False,),
    "comments": ({},),
}
# these matter only together with others, or to the other program's own files
WITHOUT_EFFECT = {
    "s_tmax", "s_min_uncond", "override_settings_restore_afterwards", "do_not_save_samples", "do_not_save_grid",
    "refiner_switch_at", "force_task_id",
}  # fmt: skip
# of a second, larger pass: what its fields may be; without enable_hr they mean nothing
HIRES = "hr_"
HIRES_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "hr_resize_x": (0,), "hr_resize_y": (0,), "hr_checkpoint_name": ("", "Use same checkpoint"),
    "hr_sampler_name": ("", "Use same sampler"), "hr_scheduler": ("", "Use same scheduler"), "hr_prompt": ("",),
    "hr_negative_prompt": ("",), "hr_upscaler": ("Lanczos", "None", ""),
}  # fmt: skip
HIRES_USED = ("hr_scale", "hr_second_pass_steps")
SETTINGS: dict[str, tuple[Any, ...]] = {"CLIP_stop_at_last_layers": (1,), "eta_noise_seed_delta": (0,)}
MODEL = "sd_model_checkpoint"
DETERMINISTIC = ("euler", "dpm_solver", "plms", "heun", "lms")
ANCESTRAL = ("euler_ancestral", "dpmpp_2s_ancestral")


@dataclass(frozen=True)
class Limits:
    """How much one request may ask for."""

    pixels: int = 1024 * 1024
    pictures: int = 16
    steps: int = 150


@dataclass(frozen=True)
class Asked:
    """A request that has been read."""

    options: Txt2ImgOptions
    model: str | None
    send_images: bool
    sampler_label: str


def read_fields(payload: Mapping[str, Any], limits: Limits, outdir: str, model_name: Any = None) -> Asked:
    """The options that a request names.

    Args:
        outdir: where pictures go that the request wants to be saved.
        model_name: title or name of a model -> its name here; None: as it is.

    Raises:
        UserError: fields that do not exist here, all of them by name; or a value that does not fit.
    """
    given = {name: value for name, value in payload.items() if value is not None}
    refuse(strange_fields(given) + strange_settings(given.get("override_settings") or {}))
    values = {name: typed(name, given[name], kind) for name, kind in USED.items() if name in given}
    label, sampler = _sampler(values)
    options = Txt2ImgOptions(
        prompt=values.get("prompt", ""),
        negative_prompt=values.get("negative_prompt", ""),
        seed=values.get("seed", -1),
        steps=values.get("steps"),
        guidance_scale=values.get("cfg_scale"),
        width=values.get("width"),
        height=values.get("height"),
        n_samples=values.get("batch_size", 1),
        n_iter=values.get("n_iter", 1),
        sampler=sampler,
        eta=_eta(values.get("eta"), sampler),
        **_varied(values),
        **_larger(values),
        tiling=values.get("tiling", False),
        outdir=outdir,
        skip_save=not values.get("save_images", False),
        skip_grid=True,
        progress=False,
    )
    check_limits(options, limits)
    chosen = (values.get("override_settings") or {}).get(MODEL)
    named = chosen if chosen is None or model_name is None else model_name(chosen)
    return Asked(options, named, values.get("send_images", True), label)


def strange_fields(given: Mapping[str, Any]) -> list[str]:
    """The fields that ask for what does not exist here."""
    found = []
    for name, value in given.items():
        if name.startswith(HIRES) and given.get("enable_hr"):
            if name not in HIRES_USED and value not in HIRES_NEUTRAL.get(name, ()):
                found.append(f"{name}: {value}")
            continue
        if name in USED or name in WITHOUT_EFFECT or name.startswith(HIRES):
            continue
        if name in NEUTRAL and any(value == neutral for neutral in NEUTRAL[name]):
            continue
        if name == "alwayson_scripts" and isinstance(value, Mapping):
            found += [f"{name}: {script}" for script, its in value.items() if _does_something(its)]
        else:
            found.append(name)
    return found


def strange_settings(settings: Any) -> list[str]:
    """The settings of the other program that are not here."""
    if not isinstance(settings, Mapping):
        return ["override_settings"]
    return [
        name for name, value in settings.items() if name != MODEL and value is not None
        and not (name in SETTINGS and value in SETTINGS[name])
    ]  # fmt: skip


def refuse(names: list[str]) -> None:
    """Raises UserError with names that do not exist here, if there are any."""
    if names:
        listed = ", ".join(f"'{printable(name)[:60]}'" for name in names[:20])
        raise UserError(f"this server has no {listed}; leave {'it' if len(names) == 1 else 'them'} out")


def check_limits(options: Txt2ImgOptions, limits: Limits) -> None:
    """Raises UserError where a request is larger than this server serves."""
    pixels = (options.width or 0) * (options.height or 0) * (options.hires or 1) ** 2
    if pixels > limits.pixels or max(options.width or 0, options.height or 0) > limits.pixels:
        raise UserError(f"{options.width}x{options.height} is larger than this server makes: {limits.pixels:,} pixels")
    if options.n_samples * options.n_iter > limits.pictures:
        raise UserError(f"{options.n_samples * options.n_iter} pictures are more than {limits.pictures} in one request")
    if (options.steps or 0) > limits.steps:
        raise UserError(f"{options.steps} steps are more than {limits.steps}")


def _does_something(script: Any) -> bool:
    """Whether a script is switched on; clients send those that they know with no arguments, or with a False."""
    arguments = script.get("args") if isinstance(script, Mapping) else script
    return arguments not in (None, [], [False], {}, "")


def typed(name: str, value: Any, kind: type) -> Any:
    """A value of the kind that its field takes.

    Raises:
        UserError: it is of another one, or means nothing.
    """
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    wrong = not isinstance(value, kind) or (kind is int and isinstance(value, bool))
    if wrong or (kind is float and not math.isfinite(value)):
        words = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", dict: "an object",
                 list: "a list"}  # fmt: skip
        raise UserError(f"'{name}' must be {words[kind]}, got {printable(repr(value)[:80])}")
    if name in ("batch_size", "n_iter", "width", "height", "steps") and value < 1:
        raise UserError(f"'{name}' must be at least 1, got {value}")
    return value


def _sampler(values: Mapping[str, Any]) -> tuple[str, str | None]:
    """Their name and ours; ``sampler_index`` is the older spelling, which clients send beside the newer one.

    Raises:
        UserError: there is no such sampler, or no such way to space its levels.
    """
    asked = values.get("sampler_name") or values.get("sampler_index")
    scheduler = str(values.get("scheduler", "")).lower()
    if scheduler not in KARRAS:
        raise UserError(f"there is no scheduler '{printable(scheduler[:60])}'; there are: automatic, karras")
    if not asked:
        if KARRAS[scheduler]:
            raise UserError("the scheduler 'karras' needs a 'sampler_name' that it is for")
        return "", None
    plain = asked.lower().removesuffix(" karras")  # as older versions have it
    known = {theirs.lower(): ours for theirs, ours in SAMPLERS.items()} | {ours: ours for ours in SAMPLERS.values()}
    if plain not in known:
        raise UserError(f"there is no sampler '{printable(asked[:60])}'; {nearest(asked, SAMPLERS)}")
    spaced = KARRAS["karras"] if plain != asked.lower() else KARRAS[scheduler]
    label = next(theirs for theirs, ours in SAMPLERS.items() if ours == known[plain])
    return label, known[plain] + spaced


def _varied(values: Mapping[str, Any]) -> dict[str, Any]:
    """The seed that is varied towards, where there is any of it."""
    strength = values.get("subseed_strength", 0.0)
    return {"variation_seed": values.get("subseed", -1), "variation_strength": strength} if strength else {}


def _larger(values: Mapping[str, Any]) -> dict[str, Any]:
    """The second pass, if it is wanted."""
    if not values.get("enable_hr"):
        return {}
    return {
        "hires": values.get("hr_scale", 2.0), "hires_strength": values.get("denoising_strength", 0.75),
        "hires_steps": values.get("hr_second_pass_steps") or None,
    }  # fmt: skip


def _eta(eta: float | None, sampler: str | None) -> float:
    """DDIM's eta. The ancestral sampler is the one with eta 1; those without noise have none to scale.

    Raises:
        UserError: an ancestral walk with another share of noise.
    """
    plain = (sampler or "").removesuffix(KARRAS["karras"])
    if eta is None or plain in DETERMINISTIC or (plain in ANCESTRAL and eta == 1):
        return 0.0
    if plain in ANCESTRAL:
        raise UserError("'eta' of an ancestral sampler can only be 1 here")
    return eta

"""The commands of the original repositories under their own names: their flags, their defaults, their model files."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

SD1 = ("models/ldm/stable-diffusion-v1/model.ckpt", "configs/stable-diffusion/v1-inference.yaml")
LAION400M = ("models/ldm/text2img-large/model.ckpt", "configs/latent-diffusion/txt2img-1p4B-eval.yaml")
SD1_INPAINTING = (
    "models/ldm/stable-diffusion-v1-5-inpainting/sd-v1-5-inpainting.ckpt",
    "configs/stable-diffusion/v1-inpainting-inference.yaml",
)
INPAINTING = ("models/ldm/inpainting_big/last.ckpt", "models/ldm/inpainting_big/config.yaml")
NOT_NEEDED = {
    "torchscript": "--torchscript is not needed: it was a way of making Intel's processors quicker",
    "ipex": "--ipex is not needed: it was a way of making Intel's processors quicker",
}


def old_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that only the originals had."""
    add = parser.add_argument_group("of the original commands").add_argument
    add("--laion400m", action="store_true", help=f"the model of {LAION400M[0]}, with its YAML")
    add("--bf16", action="store_true", help="the same as --precision bf16")
    add("--repeat", type=int, metavar="N", help="each prompt of --from-file so many times (1)")
    add("--torchscript", action="store_true", help="accepted; nothing needs it here")
    add("--ipex", action="store_true", help="accepted; nothing needs it here")


def settled(given: dict[str, Any], defaults: Mapping[str, Any], usual: tuple[str, str] = SD1) -> dict[str, Any]:
    """The options for what was given to an original command: with its defaults, and its model if that is there.

    Without a checkpoint, and without the original's where its users have it, the small model serves; it goes on being
    asked as its own YAML says, and not for the original's prompt, whose words it lacks.

    Raises:
        UserError: a flag has a value that means nothing.
    """
    from ldm.util import UserError

    for name, sentence in NOT_NEEDED.items():
        if given.pop(name, False):
            log.warning("%s", sentence)
    if given.pop("bf16", False):
        given["precision"] = "bf16"
    if given.pop("laion400m", False):
        given = {"ckpt": LAION400M[0], "config": LAION400M[1], "outdir": "outputs/txt2img-samples-laion400m", **given}
    repeat = given.pop("repeat", 1)
    if repeat < 1:
        raise UserError(f"--repeat must be at least 1, got {repeat}")
    if repeat > 1:
        given["repeat"] = repeat
    if "ckpt" not in given and Path(usual[0]).is_file():
        given["ckpt"] = usual[0]
        given.setdefault("config", usual[1])
    if "ckpt" not in given:
        log.info("'%s' is not here, so the small model makes the pictures; --ckpt FILE is another one", usual[0])
        small = ("prompt", "guidance_scale", "steps")
        defaults = {name: value for name, value in defaults.items() if name not in small}
    given.pop("debug", None)
    return {**defaults, **given}

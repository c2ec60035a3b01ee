"""The fields of a request that begins from a picture, as options of img2img and of in-painting."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from PIL import Image

from ldm.pictures.images import load_image
from ldm.pictures.opening import read_image
from ldm.util import UserError
from ldm.web.a1111.answers import decode
from ldm.web.a1111.fields import Asked, Limits, read_fields, refuse, typed
from ldm.workflows.img2img import Img2ImgOptions
from ldm.workflows.inpaint import InpaintOptions

CROP, STRETCH = 1, 0
USED: dict[str, type] = {
    "denoising_strength": float, "mask_blur": float, "inpainting_mask_invert": int, "resize_mode": int,
    "init_images": list, "mask": str, "inpaint_full_res_padding": int,
}  # fmt: skip
NEUTRAL: dict[str, tuple[Any, ...]] = {"initial_noise_multiplier": (1,), "include_init_images": (False,)}
WITH_A_MASK: dict[str, tuple[Any, ...]] = {"inpainting_fill": (1,), "inpaint_full_res": (False, True)}
WITHOUT_EFFECT = {"image_cfg_scale", "mask_blur_x", "mask_blur_y"}
STRENGTH = 0.75


def read_picture_fields(payload: Mapping[str, Any], limits: Limits, outdir: str, model_name: Any = None) -> Asked:
    """As ``read_fields``, of a request to img2img.

    Raises:
        UserError: as there; or there is not one picture, or a picture or a mask that is none.
    """
    given = {name: value for name, value in payload.items() if value is not None}
    values = {name: typed(name, given[name], kind) for name, kind in USED.items() if name in given}
    masked = bool(values.get("mask"))
    refuse(_strange(given, masked))
    own = {*USED, *NEUTRAL, *WITH_A_MASK, *WITHOUT_EFFECT}
    asked = read_fields({name: value for name, value in given.items() if name not in own}, limits, outdir, model_name)
    images = values.get("init_images") or []
    if len(images) != 1:
        raise UserError(f"'init_images' must be one picture in base64, got {len(images)}")
    init = opened(images[0])
    part_alone = masked and bool(given.get("inpaint_full_res", False))
    if not part_alone:
        _check_resizing(values.get("resize_mode", STRETCH), init, asked)
    same = {one.name: getattr(asked.options, one.name) for one in fields(asked.options)}
    how = {"init_img": init, "strength": values.get("denoising_strength", STRENGTH)}
    if not masked:
        return replace(asked, options=Img2ImgOptions(**same | how))
    how |= {
        "mask": _fitted(opened(values["mask"]), init), "mask_blur": values.get("mask_blur", 4.0),
        "invert_mask": bool(values.get("inpainting_mask_invert", 0)),
        "only_masked": values.get("inpaint_full_res_padding", 0) if part_alone else None,
    }  # fmt: skip
    return replace(asked, options=InpaintOptions(**same | how))


def opened(text: Any) -> Image.Image:
    """The picture of a text in base64, upright, as commands open pictures.

    Raises:
        UserError: it is none.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image"
        path.write_bytes(decode(text))
        image = read_image(path)
        return image if "A" in image.getbands() else load_image(path)


def _strange(given: Mapping[str, Any], masked: bool) -> list[str]:
    allowed = NEUTRAL | (WITH_A_MASK if masked else {})
    return [
        f"{name}: {given[name]}" for name, values in allowed.items() if name in given and given[name] not in values
    ]  # fmt: skip


def _check_resizing(mode: int, init: Image.Image, asked: Asked) -> None:
    """Raises UserError where a picture would have to be stretched, filled up or enlarged as a latent."""
    width, height = asked.options.width, asked.options.height
    stretched = width and height and abs(width / height - init.width / init.height) > 0.02 * width / height
    if mode not in (STRETCH, CROP) or (mode == STRETCH and stretched):
        refuse([f"resize_mode: {mode}, but 1, which crops"])


def _fitted(mask: Image.Image, init: Image.Image) -> Image.Image:
    return mask if mask.size == init.size else mask.resize(init.size, Image.Resampling.BILINEAR)

"""What a client of A1111's API gets back: pictures as text, and what there is to say about them."""

from __future__ import annotations

import base64
import binascii
import io
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ldm.pictures.images import read_parameters, save_image
from ldm.util import UserError
from ldm.web.a1111.fields import MODEL, SAMPLERS
from ldm.web.jobs import OPENING, Desk, Job
from ldm.workflows.txt2img import Made

LABELS = {ours + end: theirs for theirs, ours in SAMPLERS.items() for end in ("", "_karras")}


def encode(image: Image.Image, about: Mapping[str, Any] | None = None) -> str:
    """A picture as PNG in base64, with the parameters in it that a command writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        save_image(image, path, about)
        return base64.b64encode(path.read_bytes()).decode()


def decode(text: Any) -> bytes:
    """The bytes of a picture that came as base64, with or without ``data:image/png;base64,`` before it.

    Raises:
        UserError: it is none.
    """
    if not isinstance(text, str) or not text:
        raise UserError("a picture in base64 is missing")
    try:
        return base64.b64decode(text.rpartition(",")[2], validate=True)
    except (binascii.Error, ValueError) as error:
        raise UserError(f"a picture is no base64: {error}") from error


def pictures_answer(payload: Mapping[str, Any], made: Sequence[Made], send: bool) -> dict[str, Any]:
    """The answer to txt2img."""
    texts = [infotext(one.about) for one in made]
    about: Mapping[str, Any] = made[0].about if made else {}
    info = {
        "prompt": about.get("prompt", ""),
        "all_prompts": [one.prompt for one in made],
        "negative_prompt": about.get("negative_prompt", ""),
        "all_negative_prompts": [one.about.get("negative_prompt", "") for one in made],
        "seed": made[0].seed if made else None,
        "all_seeds": [one.seed for one in made],
        "width": about.get("width"),
        "height": about.get("height"),
        "sampler_name": LABELS.get(about.get("sampler", ""), about.get("sampler")),
        "cfg_scale": about.get("guidance_scale"),
        "steps": about.get("steps"),
        "batch_size": len(made),
        "sd_model_name": about.get("model"),
        "index_of_first_image": 0,
        "infotexts": texts,
        "paths": [os.fspath(one.path) for one in made if one.path is not None],
    }
    images = [encode(one.image, one.about) for one in made] if send else []
    return {"images": images, "parameters": dict(payload), "info": json.dumps(info, ensure_ascii=False)}


def infotext(about: Mapping[str, Any]) -> str:
    """The parameters of a picture as that web UI writes them below it."""
    lines = [str(about.get("prompt", ""))]
    if about.get("negative_prompt"):
        lines.append(f"Negative prompt: {about['negative_prompt']}")
    sampler = about.get("sampler", "")
    parts = {
        "Steps": about.get("steps"),
        "Sampler": LABELS.get(sampler, sampler),
        "CFG scale": about.get("guidance_scale"),
        "Seed": about.get("seed"),
        "Size": f"{about.get('width')}x{about.get('height')}",
        "Model": about.get("model"),
    }
    return "\n".join([*lines, ", ".join(f"{name}: {value}" for name, value in parts.items() if value is not None)])


def png_info(data: bytes) -> dict[str, Any]:
    """What is written in a picture.

    Raises:
        UserError: it is no picture.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image"
        path.write_bytes(data)
        found = read_parameters(path)
    if found is None:
        return {"info": "", "items": {}, "parameters": {}}
    if isinstance(found, str):
        return {"info": found, "items": {"parameters": found}, "parameters": {}}
    return {
        "info": infotext(found),
        "items": {"parameters": json.dumps(found, ensure_ascii=False)},
        "parameters": found,
    }


def progress(desk: Desk, with_picture: bool) -> dict[str, Any]:
    """How far the running request is."""
    job = desk.current
    share = 0.0 if job is None or not job.steps else job.step / job.steps
    picture = None
    if job is not None and with_picture:
        job.want_preview()
        picture = _png(job.pictures[0]) if job.pictures else None
    return {
        "progress": share,
        "eta_relative": 0.0 if job is None else job.remaining,
        "state": {
            "skipped": False,
            "interrupted": job is not None and job.is_cancelled,
            "stopping_generation": job is not None and job.is_cancelled,
            "job": "" if job is None else job.kind,
            "job_count": 0 if job is None else 1 + len(desk.waiting()),
            "job_timestamp": "0",
            "job_no": 0,
            "sampling_step": 0 if job is None else job.step,
            "sampling_steps": 0 if job is None else job.steps,
        },
        "current_image": picture,
        "textinfo": "opening the model" if job is not None and job.state == OPENING else None,
        "current_task": None if job is None else job.id,
    }


def _png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def options(desk: Desk) -> dict[str, Any]:
    """The settings that there are."""
    return {MODEL: desk.model().name, "sd_checkpoint_hash": "", "samples_format": "png", "CLIP_stop_at_last_layers": 1}


def models(desk: Desk) -> list[dict[str, Any]]:
    """The models that can be asked for pictures."""
    return [
        {"title": one.name, "model_name": one.name, "hash": None, "sha256": None, "filename": str(one.ckpt),
         "config": None, "about": one.about}
        for one in desk.models() if not one.films
    ]  # fmt: skip


def job_answer(job: Job, payload: Mapping[str, Any], send: bool) -> dict[str, Any]:
    """The answer of a finished job.

    Raises:
        UserError: it has failed.
    """
    if job.error:
        raise UserError(job.error)
    return pictures_answer(payload, job.results, send) | {"notes": job.notes}

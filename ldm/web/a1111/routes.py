"""The paths of A1111's API that exist here, each of them a few lines over the desk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Body, FastAPI, Request
from fastapi.responses import JSONResponse

from ldm.util import UserError
from ldm.web.a1111 import answers
from ldm.web.a1111.fields import MODEL, SAMPLERS, Asked, Limits, read_fields, refuse, strange_settings
from ldm.web.a1111.pictures import read_picture_fields
from ldm.web.jobs import Desk
from ldm.workflows.img2img import Img2ImgOptions, img2img
from ldm.workflows.inpaint import InpaintOptions, inpaint
from ldm.workflows.txt2img import Txt2ImgOptions, txt2img

PREFIX = "/sdapi/v1"
Payload = dict[str, Any]
PICTURES = ("init_images", "mask")  # too large to be sent back


def add_routes(app: FastAPI, desk: Desk, outdir: Path, limits: Limits) -> None:
    """Put the API on an app; what goes wrong is one sentence under ``detail``."""

    @app.exception_handler(UserError)
    async def sentence(request: Request, error: UserError) -> JSONResponse:
        return JSONResponse({"error": type(error).__name__, "detail": str(error), "errors": ""}, status_code=422)

    app.include_router(_requests(desk, outdir, limits))
    app.include_router(_lists(desk))


def _requests(desk: Desk, outdir: Path, limits: Limits) -> APIRouter:
    """What makes pictures, and what is asked about it meanwhile."""
    router = APIRouter(prefix=PREFIX)

    @router.post("/txt2img")
    async def text_to_image(payload: Payload = Body(...)) -> dict[str, Any]:  # noqa: B008 FastAPI's way
        return await made(read_fields, payload, "txt2img")

    @router.post("/img2img")
    async def image_to_image(payload: Payload = Body(...)) -> dict[str, Any]:  # noqa: B008
        return await made(read_picture_fields, payload, "img2img")

    async def made(read: Callable[..., Asked], payload: Payload, kind: str) -> dict[str, Any]:
        asked = await asyncio.to_thread(read, payload, limits, str(outdir), lambda name: desk.model(name).name)
        job = desk.submit(_task(asked.options), asked.model, kind)
        await asyncio.wrap_future(job.future)
        desk.forget(job)
        told = {name: value for name, value in payload.items() if name not in PICTURES}
        return await asyncio.to_thread(answers.job_answer, job, told, asked.send_images)

    @router.get("/progress")
    def progress(skip_current_image: bool = False) -> dict[str, Any]:
        return answers.progress(desk, not skip_current_image)

    @router.post("/interrupt")
    def interrupt() -> dict[str, Any]:
        if desk.current is not None:
            desk.cancel(desk.current)
        return {}

    @router.post("/png-info")
    def png_info(payload: Payload = Body(...)) -> dict[str, Any]:  # noqa: B008
        refuse([name for name in payload if name != "image"])
        return answers.png_info(answers.decode(payload.get("image")))

    @router.get("/options")
    def get_options() -> dict[str, Any]:
        return answers.options(desk)

    @router.post("/options")
    def set_options(payload: Payload = Body(...)) -> dict[str, Any]:  # noqa: B008
        refuse(strange_settings(payload))
        if MODEL in payload:
            desk.default = desk.model(str(payload[MODEL])).name
        return {}

    return router


def _task(options: Txt2ImgOptions) -> Callable[..., None]:
    def task(studio: Any, watch: Any) -> None:
        if isinstance(options, InpaintOptions):
            inpaint(options, studio, watch)
        elif isinstance(options, Img2ImgOptions):
            img2img(options, studio, watch)
        else:
            txt2img(options, studio, watch)

    return task


def _lists(desk: Desk) -> APIRouter:
    """What there is to choose from."""
    router = APIRouter(prefix=PREFIX)

    @router.get("/samplers")
    def samplers() -> list[dict[str, Any]]:
        return [{"name": theirs, "aliases": [ours], "options": {}} for theirs, ours in SAMPLERS.items()]

    @router.get("/schedulers")
    def schedulers() -> list[dict[str, Any]]:
        return [{"name": name, "label": name.title(), "aliases": None} for name in ("automatic", "karras")]

    @router.get("/upscalers")
    def upscalers() -> list[dict[str, Any]]:
        return [{"name": "Lanczos", "model_name": None, "model_path": None, "model_url": None, "scale": None}]

    @router.get("/sd-models")
    def sd_models() -> list[dict[str, Any]]:
        return answers.models(desk)

    @router.post("/refresh-checkpoints")
    def refresh() -> None:
        """The list is read anew at each look."""

    @router.get("/scripts")
    def scripts() -> dict[str, list[str]]:
        return {"txt2img": [], "img2img": []}

    return router

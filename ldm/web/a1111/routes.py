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
from ldm.web.a1111.fields import MODEL, SAMPLERS, Limits, read_fields, refuse, strange_settings
from ldm.web.jobs import Desk
from ldm.workflows.catalogue import model_named
from ldm.workflows.txt2img import Txt2ImgOptions, txt2img

PREFIX = "/sdapi/v1"
Payload = dict[str, Any]


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
        asked = read_fields(payload, limits, str(outdir), lambda name: model_named(name, desk.models()).name)
        job = desk.submit(_task(asked.options), asked.model, "txt2img")
        await asyncio.wrap_future(job.future)
        desk.forget(job)
        return await asyncio.to_thread(answers.job_answer, job, payload, asked.send_images)

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
            desk.default = model_named(str(payload[MODEL]), desk.models()).name
        return {}

    return router


def _task(options: Txt2ImgOptions) -> Callable[..., None]:
    def task(studio: Any, watch: Any) -> None:
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
        return [{"name": "automatic", "label": "Automatic", "aliases": None}]

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

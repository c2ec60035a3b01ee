"""A server of this machine: who may ask, at which port, and how it starts and ends."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import socket
from collections.abc import AsyncIterator
from typing import Any

from ldm.util import MissingPartError, UserError
from ldm.web.jobs import Desk
from ldm.web.rules import Rules

log = logging.getLogger(__name__)

FIRST_PORT = 7860
LAST_PORT = 7959
WEB = "pip install -c constraints.txt '.[web]'"


def make_app(desk: Desk, rules: Rules) -> Any:
    """An empty FastAPI app behind a guard; the desk works as long as it runs."""
    from fastapi import FastAPI

    from ldm.web.guard import Guard

    @contextlib.asynccontextmanager
    async def working(app: FastAPI) -> AsyncIterator[None]:
        desk.start()
        yield
        desk.stop()

    app = FastAPI(title="ldm", lifespan=working, docs_url=None, redoc_url=None)  # those pages load from elsewhere
    app.add_middleware(Guard, rules=rules)
    return app


def check_installed(what: str, *more: str) -> None:
    """Raises MissingPartError where a package that a server needs (or ``more``) is missing; ``what`` was wanted."""
    for name in ("fastapi", "uvicorn", *more):
        if importlib.util.find_spec(name) is None:
            raise MissingPartError(f"{what} needs '{name}', which is not installed: {WEB}")


def free_port(host: str, wanted: int | None) -> int:
    """The port that was asked for, else 7860 or the next that is free.

    Raises:
        UserError: there is none, or no such address.
    """
    error = ""
    for port in [wanted] if wanted is not None else range(FIRST_PORT, LAST_PORT + 1):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            try:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server itself will
                probe.bind((host, port))
            except (OSError, OverflowError) as problem:
                error = str(problem)
                continue
            return port
    raise UserError(f"cannot listen at {host}, port {wanted or f'{FIRST_PORT} to {LAST_PORT}'}: {error}")


def address(host: str, port: int) -> str:
    """What to type into a browser."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def listen(app: Any, host: str, port: int) -> None:
    """Serve until a signal comes."""
    import uvicorn

    uvicorn.run(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=5)

"""Who may ask, and how much: names of this machine, this page alone, a token for others, and an end to large bodies."""

from __future__ import annotations

import base64
import binascii
import contextlib
import secrets
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ldm.web.rules import LOOPBACK, Rules

READING = ("GET", "HEAD", "OPTIONS")


class Guard:
    """An ASGI app before another one; it lets through what the rules allow. Who leaves in the middle is no error."""

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self.app, self.rules = app, rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        refused = self._refusal(scope)
        if refused is not None:
            await refused(scope, receive, send)
            return
        with contextlib.suppress(ClientDisconnect):  # a page closed during an upload: nobody waits for an answer
            await self.app(scope, _Meter(receive, self.rules.largest), send)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self.rules.is_local and _name(host) not in LOOPBACK:
            return _sentence(400, f"this address is '{self.rules.host}', not '{host[:80]}'")
        origin = headers.get("origin")
        if origin is not None and scope.get("method") not in READING and urlsplit(origin).netloc != host:
            return _sentence(403, f"a page of '{origin[:80]}' may not ask here")
        if self.rules.token and not _is_known(headers.get("authorization", ""), self.rules.token):
            refused = _sentence(401, "this server asks for its token: 'Authorization: Bearer TOKEN'")
            refused.headers["www-authenticate"] = 'Basic realm="ldm", charset="UTF-8"'
            return refused
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self.rules.largest:
            return _sentence(413, _too_large(self.rules.largest))
        return None


class _Meter:
    """Counts what a request without a length brings."""

    def __init__(self, receive: Receive, largest: int) -> None:
        self._receive, self._largest, self._seen = receive, largest, 0

    async def __call__(self) -> Message:
        message = await self._receive()
        self._seen += len(message.get("body", b""))
        if self._seen > self._largest:
            raise HTTPException(413, _too_large(self._largest))
        return message


def _name(host: str) -> str:
    """The name in a Host header, without the port."""
    return host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host


def _is_known(header: str, token: str) -> bool:
    kind, _, value = header.partition(" ")
    if kind.lower() == "basic":
        try:
            value = base64.b64decode(value).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return False
    elif kind.lower() != "bearer":
        return False
    return secrets.compare_digest(value.encode(), token.encode())


def _too_large(largest: int) -> str:
    return f"a request may bring {largest // 2**20} MB at most"


def _sentence(code: int, text: str) -> JSONResponse:
    return JSONResponse({"error": "refused", "detail": text, "errors": ""}, status_code=code)

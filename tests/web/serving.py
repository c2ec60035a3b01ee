"""A server in a thread of the test, at a port of its own, until the block ends."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from ldm.web.server import address

HOST = "127.0.0.1"


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """The address of an app that is being served."""
    import uvicorn

    listening = socket.create_server((HOST, 0))  # bound at once: other tests look for free ports at the same time
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    until(lambda: server.started, "the server did not start")
    try:
        yield address(HOST, listening.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(20)


def until(is_so: Any, complaint: str, seconds: float = 60.0) -> None:
    """Wait for something."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, complaint
        time.sleep(0.02)

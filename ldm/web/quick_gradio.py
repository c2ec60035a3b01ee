"""gradio, imported in two thirds of its time."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any


def import_gradio() -> None:
    """Import gradio without the type stubs that it writes beside its source, anew at each import.

    For each of its components it parses that source and the stub, to see that nothing has changed. It goes without
    where a class has no file, and that is what it is told here.
    """
    with _without_files():
        import gradio  # noqa: F401


@contextlib.contextmanager
def _without_files() -> Iterator[None]:
    """A block in which gradio's own classes come from no file."""
    before = inspect.getfile

    def getfile(thing: Any) -> str:
        if isinstance(thing, type) and thing.__module__.startswith("gradio."):
            raise OSError("not looked for")
        return before(thing)

    inspect.getfile = getfile  # type: ignore[assignment]
    try:
        yield
    finally:
        inspect.getfile = before

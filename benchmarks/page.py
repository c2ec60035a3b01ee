"""How long somebody at the page waits: for the page itself, and after a change of gamma for the first preview.

    python -m benchmarks.page

Starts ``python app.py`` with the small model and drives a browser (see scripts/screenshots.py): a photograph of 256
pixels is restyled once, so that both pictures are inverted; then gamma is changed, and the time runs from there until
another picture stands in the page.
"""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Sequence
from typing import Any

from ldm.arguments import Parser
from ldm.util import UserError, run_command
from scripts.screenshots import Visitor, browser, served

LIMIT = 120.0  # seconds
GAMMAS = (0.5, 0.3, 0.9)
SHOWN = "[...document.querySelectorAll('#restyle-result img')].map(one => one.src).join()"


def seconds_until_answer(url: str) -> float:
    """Until the page is served.

    Raises:
        UserError: it is not.
    """
    began = time.perf_counter()
    while time.perf_counter() - began < LIMIT:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.02)
            continue
        return time.perf_counter() - began
    raise UserError("the page does not answer")


def seconds_until_preview(page: Any, gamma: float) -> float:
    """From a change of gamma to another picture in the page."""
    before = page.evaluate(SHOWN)
    slider = page.locator("#restyle-gamma input[type=range]")
    slider.evaluate(f"one => {{ one.value = {gamma}; one.dispatchEvent(new Event('input', {{bubbles: true}})); }}")
    began = time.perf_counter()
    slider.dispatch_event("pointerup")
    page.wait_for_function(f"before => {SHOWN} !== before", arg=before, polling=20)
    taken = time.perf_counter() - began
    page.wait_for_selector("#restyle-status .done")
    return taken


def main(arguments: Sequence[str] | None = None) -> None:
    Parser(description=__doc__).parse_args(
        arguments
    )
    began = time.perf_counter()
    with served() as url:
        seconds_until_answer(url)
        print(f"the page is served {time.perf_counter() - began:.1f} s after its start", flush=True)
        with browser() as started:
            visitor = Visitor(started, url, 1440, False, "en-US")
            print(f"and can be used, with the model in its menu, after {time.perf_counter() - began:.1f} s", flush=True)
            visitor.tab("restyle")
            visitor.restyle()
            waits = [seconds_until_preview(visitor.page, gamma) for gamma in GAMMAS]
    print("first preview after a change of gamma: " + ", ".join(f"{wait:.2f} s" for wait in waits))


if __name__ == "__main__":
    run_command(main)

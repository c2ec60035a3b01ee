"""The page in a real browser: what its tests do on it, wherever they are. Skips them where there is none."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from ldm.web.quick_gradio import import_gradio

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if find_spec("gradio") is None:
    pytest.skip("the page needs the extra 'web'", allow_module_level=True)
import_gradio()
sync_api = pytest.importorskip("playwright.sync_api", reason="a browser is driven by playwright")
if CHROMIUM is None:
    pytest.skip("no Chromium is installed: apt-get install chromium", allow_module_level=True)

WAIT = 180_000  # milliseconds, on a busy machine
READY = "document.querySelector('#ldm-model input')?.value.includes('tiny')"


def opened(browser: Any, url: str, **how: Any) -> Any:
    """The page as somebody new opens it; ``asked`` are the addresses of its requests. It takes a slow core 10 s."""
    page = browser.new_context(viewport={"width": 1440, "height": 1000}, reduced_motion="reduce", **how).new_page()
    page.set_default_timeout(WAIT)
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(url)
    page.wait_for_function(READY)
    return page


def tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def choose(page: Any, menu: str, option: str) -> None:
    page.locator(f"{menu} input").click()
    page.get_by_role("option", name=option).first.click()


def number(page: Any, field: str, value: float) -> None:
    """Type into the number beside a slider."""
    box = page.locator(f"{field} input[type=number]")
    box.wait_for()
    page.wait_for_timeout(500)  # a field that has just come into sight may forget what is typed at once
    box.fill(str(value))
    box.press("Tab")
    page.wait_for_timeout(300)  # the field shows the number before a request takes it


def finished(page: Any, kind: str, wait: int = WAIT) -> str:
    """What the line of a tab says at the end, which must be no error."""
    line = page.wait_for_selector(f"#{kind}-status .done, #{kind}-status .error", timeout=wait)
    assert "error" not in line.get_attribute("class"), line.inner_text()
    return line.inner_text()


def generate(page: Any, prompt: str, seed: int) -> None:
    page.fill("#generate-prompt textarea", prompt)
    page.locator("#generate-seed input").fill(str(seed))
    page.click("#generate-run")


def newest(folder: Path) -> Path:
    """The last picture that is there whole: what is being written lies in a folder that goes away."""
    whole = (path for path in folder.rglob("*.png") if path.parent.suffix != ".part")
    return max(whole, key=lambda path: path.stat().st_mtime)

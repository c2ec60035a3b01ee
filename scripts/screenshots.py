"""The pictures of docs/app.md: starts the page, makes something in every tab, and photographs it.

    python -m scripts.screenshots                                      # all pictures of the docs
    python -m scripts.screenshots --out outputs/shots --width 800      # narrow
    python -m scripts.screenshots --out outputs/shots --dark --locale ko-KR --tabs generate restyle

Needs the extra 'web', playwright and Chromium (apt-get install chromium); takes some minutes.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from ldm.shipped import ROOT
from ldm.util import MissingPartError, UserError, run_command
from ldm.web.page.texts import say

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WAIT = 300_000  # milliseconds
SHOWN = 1000  # pixels across of a picture in the docs
LARGEST, QUALITIES = 60_000, (80, 72, 64, 56, 48)  # bytes of a picture; what is tried until it is no larger
LESSON = 60  # steps that are learned
DOCS = ROOT / "docs" / "pictures"
EXTRA = (("generate", 1440, True, "ko-KR"), ("restyle", 800, True, "en-US"))  # beside all tabs, light and wide


@contextmanager
def served() -> Iterator[str]:
    """The address of a page whose results and runs go into a folder that is removed.

    Raises:
        UserError: it did not start.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "app.py"), "--outdir", folder]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=folder)
        assert process.stdout is not None
        found = re.match(r"http://\S+", process.stdout.readline())
        try:
            if found is None:
                raise UserError("the page did not start; python app.py says why")
            yield found[0]
        finally:
            process.terminate()
            process.wait(30)


@contextmanager
def browser() -> Iterator[Any]:
    """A browser.

    Raises:
        MissingPartError: there is none, or nothing to drive it.
    """
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise MissingPartError("pictures of the page need playwright: pip install -e '.[test,web]'") from error
    if path is None:
        raise MissingPartError("pictures of the page need Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])


class Visitor:
    """Somebody at the page, who does one thing in each tab."""

    def __init__(self, browser: Any, url: str, width: int, dark: bool, locale: str, lesson: int = LESSON) -> None:
        self.language, self.lesson = locale[:2], lesson
        size, scheme = {"width": width, "height": 900}, "dark" if dark else "light"
        context = browser.new_context(viewport=size, color_scheme=scheme, locale=locale)
        self.page = context.new_page()
        self.page.set_default_timeout(WAIT)
        self.page.goto(url)
        self.page.wait_for_function("document.querySelector('#ldm-model input')?.value.includes('tiny')")

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=say(name, self.language), exact=True).click()

    def choose(self, menu: str, option: str) -> None:
        self.page.locator(f"{menu} input").click()
        self.page.get_by_role("option", name=option).first.click()

    def run(self, kind: str) -> None:
        """Press the button and wait; raises UserError when that fails."""
        self.page.click(f"#{kind}-run")
        line = self.page.wait_for_selector(f"#{kind}-status .done, #{kind}-status .error")
        if "error" in (line.get_attribute("class") or ""):
            raise UserError(f"{kind}: {line.inner_text()}")

    def generate(self) -> None:
        prompts = {"ko": "노란 배경 위의 펭귄", "zh": "黄色背景上的企鹅"}
        self.page.fill("#generate-prompt textarea", prompts.get(self.language, "a penguin on a yellow background"))
        self.page.locator("#generate-seed input").fill("7")
        count = self.page.locator("#generate-count input[type=number]")
        count.fill("4")
        count.press("Tab")
        self.run("generate")

    def personalise(self) -> None:
        """A few steps: enough to see how it looks."""
        self.page.click("#learn-sample")
        self.page.wait_for_function("document.querySelectorAll('#learn-squares img').length === 5")
        self.page.fill("#learn-name input", "stripes")
        self.page.fill("#learn-start input", "triangle")
        steps = self.page.locator("#learn-steps input[type=number]")
        steps.fill(str(self.lesson))
        steps.press("Tab")
        self.run("personalise")
        self.run("learned")

    def restyle(self) -> None:
        self.choose("#restyle-sample", "cat")
        self.page.wait_for_timeout(1500)
        self.page.locator("#restyle-styles .thumbnail-item").nth(5).click()
        self.page.wait_for_selector("#restyle-chosen .token")
        self.run("restyle")

    def guide(self) -> None:
        self.page.fill("#guide-prompt textarea", "a red circle on a white background")
        self.page.fill("#guide-board input", "red circle")
        board = self.page.locator("#guide-board svg")
        board.scroll_into_view_if_needed()
        box = board.bounding_box()
        corners = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in ((0.05, 0.3), (0.55, 0.8))]
        self.page.mouse.move(*corners[0])
        self.page.mouse.down()
        self.page.mouse.move(*corners[1], steps=4)
        self.page.mouse.up()
        self.run("guide-box")

    def look(self) -> None:
        self.choose("#look-sample", "cat")
        self.page.wait_for_selector("#look-picture img")
        self.page.wait_for_timeout(500)
        self.page.locator("#look-picture img").click()
        self.page.wait_for_selector("#look-status .done")

    def gallery(self) -> None:
        self.page.locator("#gallery-shown .thumbnail-item").first.wait_for()
        self.page.wait_for_timeout(1000)
        self.page.locator("#gallery-shown .thumbnail-item").last.click()
        self.page.wait_for_selector("#gallery-about >> text=prompt")

    def shot(self) -> Image.Image:
        """The whole page as it is, from its top."""
        self.page.evaluate("window.scrollTo(0, 0)")
        self.page.mouse.move(5, 5)
        self.page.wait_for_timeout(700)
        shot = io.BytesIO(self.page.screenshot(full_page=True))
        return Image.open(shot, formats=("PNG",)).convert("RGB")


JOURNEYS: dict[str, Callable[[Visitor], None]] = {
    "generate": Visitor.generate,
    "personalise": Visitor.personalise,
    "restyle": Visitor.restyle,
    "guide": Visitor.guide,
    "look": Visitor.look,
    "gallery": Visitor.gallery,
}


def photograph(visitor: Visitor, name: str, path: Path) -> None:
    """Do what there is to do in a tab, and keep a picture of it."""
    visitor.tab(name)
    JOURNEYS[name](visitor)
    image = visitor.shot()
    if image.width > SHOWN:
        image = image.resize((SHOWN, round(image.height * SHOWN / image.width)), Image.Resampling.LANCZOS)
    path.parent.mkdir(parents=True, exist_ok=True)
    for quality in QUALITIES:
        image.save(path, quality=quality, optimize=True, progressive=True)
        if path.stat().st_size <= LARGEST:
            break
    print(path, flush=True)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, default=DOCS, metavar="FOLDER", help="(docs/pictures)")
    add("--width", type=int, default=1440, help="of the window (1440)")
    add("--dark", action="store_true", help="in the browser's dark scheme")
    add("--locale", default="en-US", help="of the browser: en-US, ko-KR, zh-CN")
    add("--tabs", nargs="+", choices=list(JOURNEYS), default=list(JOURNEYS), help="(all)")
    add("--lesson", type=int, default=LESSON, metavar="STEPS", help=f"that are learned ({LESSON})")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    given = parse(arguments)
    began = time.perf_counter()
    with served() as url, browser() as started:
        visitor = Visitor(started, url, given.width, given.dark, given.locale, given.lesson)
        for name in given.tabs:
            photograph(visitor, name, given.out / f"app_{name}.jpg")
        for name, width, dark, locale in EXTRA if given.out == DOCS else ():
            other = Visitor(started, url, width, dark, locale)
            photograph(other, name, given.out / f"app_{name}_{width}_{locale[:2]}_{'dark' if dark else 'light'}.jpg")
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    run_command(main)

"""The pictures of docs/app.md: starts the page, makes something in every tab, and photographs it.

    python -m scripts.screenshots                                      # all pictures of the docs
    python -m scripts.screenshots --out outputs/shots --width 800      # narrow
    python -m scripts.screenshots --out outputs/shots --dark --locale ko-KR --tabs generate restyle
    python -m scripts.screenshots --out outputs/shots --views          # each tab light and dark, wide and narrow

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

from ldm.arguments import Parser
from ldm.shipped import ROOT
from ldm.util import MissingPartError, UserError, run_command
from ldm.web.page.texts import say

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WAIT = 300_000  # milliseconds
SHOWN = 1000  # pixels across of a picture in the docs
LARGEST, QUALITIES = 60_000, (80, 72, 64, 56, 48)  # bytes of a picture; what is tried until it is no larger
LESSON = 150  # steps that are learned
FLOWER = ROOT / "examples" / "flower"
DOCS = ROOT / "docs" / "pictures"
WIDE, NARROW = 1440, 800
VIEWS = tuple((width, dark) for width in (WIDE, NARROW) for dark in (False, True))
ALSO_NARROW = "restyle"  # in the docs, dark; and as somebody in Korea sees it, dark:
IN_KOREAN = "generate"


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
        """What README learns, with a mask found in one of the pictures."""
        pictures = sorted(FLOWER.glob("*.png"))
        self.page.set_input_files("#learn-pictures input[type=file]", pictures)
        self.page.wait_for_function(f"document.querySelectorAll('#learn-squares img').length === {len(pictures)}")
        sentences = [" | ".join(path.with_suffix(".txt").read_text("utf-8").splitlines()) for path in pictures]
        self.page.fill("#learn-captions textarea", "\n".join(sentences).replace("sks", "*"))
        square = self.page.locator("#learn-squares img").nth(1)
        before = square.get_attribute("src")
        square.click()
        self.page.wait_for_function(f"document.querySelectorAll('#learn-squares img')[1].src !== {before!r}")
        self.page.locator("#learn-method label").nth(1).click()
        self.page.fill("#learn-name input", "flower")
        steps = self.page.locator("#learn-steps input[type=number]")
        steps.fill(str(self.lesson))
        steps.press("Tab")
        self.run("personalise")
        self.page.fill("#learned-prompt textarea", "a large sks in a meadow")
        self.page.locator("#learned-seed input").fill("3")
        self.run("learned")

    def restyle(self) -> None:
        self.choose("#restyle-sample", "cat")
        self.page.wait_for_timeout(1500)
        self.page.locator("#restyle-styles .thumbnail-item").nth(5).click()
        self.page.wait_for_selector("#restyle-chosen .token")
        self.run("restyle")

    def guide(self) -> None:
        """An edit of a colour."""
        self.tab("guide_edit")
        self.page.fill("#edit-prompt textarea", "a large red heart on a white background")
        self.page.fill("#edit-second textarea", "a large blue heart on a white background")
        self.page.wait_for_selector("#edit-weight-1 input")
        self.run("guide-edit")

    def look(self) -> None:
        self.choose("#look-sample", "cat")
        self.page.wait_for_selector("#look-picture img")
        self.page.wait_for_timeout(500)
        self.page.locator("#look-picture img").click()
        self.page.wait_for_selector("#look-status .done")

    def film(self) -> None:
        """A balloon that rises."""
        self.choose("#film-sample", "balloon")
        self.page.wait_for_selector("#film-first img")
        self.choose("#film-heading", "↑")
        self.run("film")
        self.page.wait_for_selector("#film-shown img")

    def gallery(self) -> None:
        self.page.locator("#gallery-shown .thumbnail-item").first.wait_for()
        self.page.wait_for_timeout(1000)
        self.page.locator("#gallery-shown .thumbnail-item").last.click()
        self.page.wait_for_selector("#gallery-about >> text=prompt")

    def shot(self, width: int, dark: bool) -> Image.Image:
        """The whole page as it is, from its top, in a window of that width."""
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.emulate_media(color_scheme="dark" if dark else "light")
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
    "film": Visitor.film,
    "gallery": Visitor.gallery,
}


def photograph(visitor: Visitor, name: str, views: Sequence[tuple[int, bool, Path]]) -> None:
    """Do what there is to do in a tab, and keep pictures of it: (width, whether dark, where)."""
    visitor.tab(name)
    JOURNEYS[name](visitor)
    for width, dark, path in views:
        write(visitor.shot(width, dark), path)
    visitor.page.set_viewport_size({"width": views[0][0], "height": 900})


def write(image: Image.Image, path: Path) -> None:
    """Write a picture that is small enough for the docs."""
    if image.width > SHOWN:
        image = image.resize((SHOWN, round(image.height * SHOWN / image.width)), Image.Resampling.LANCZOS)
    path.parent.mkdir(parents=True, exist_ok=True)
    for quality in QUALITIES:
        image.save(path, quality=quality, optimize=True, progressive=True)
        if path.stat().st_size <= LARGEST:
            break
    print(path, flush=True)


def views_of(name: str, given: argparse.Namespace) -> list[tuple[int, bool, Path]]:
    """How a tab is photographed."""
    if given.views:
        return [(width, dark, given.out / f"app_{name}_{width}_{'dark' if dark else 'light'}.jpg")
                for width, dark in VIEWS]  # fmt: skip
    views = [(given.width, given.dark, given.out / f"app_{name}.jpg")]
    if given.out == DOCS and name == ALSO_NARROW:
        views.append((NARROW, True, DOCS / f"app_{name}_{NARROW}_en_dark.jpg"))
    return views


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, default=DOCS, metavar="FOLDER", help="(docs/pictures)")
    add("--width", type=int, default=WIDE, help=f"of the window ({WIDE})")
    add("--dark", action="store_true", help="in the browser's dark scheme")
    add("--locale", default="en-US", help="of the browser: en-US, ko-KR, zh-CN")
    add("--tabs", nargs="+", choices=list(JOURNEYS), default=list(JOURNEYS), help="(all)")
    add("--views", action="store_true", help=f"each tab {WIDE} and {NARROW} pixels wide, light and dark")
    add("--lesson", type=int, default=LESSON, metavar="STEPS", help=f"that are learned ({LESSON})")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    given = parse(arguments)
    began = time.perf_counter()
    with served() as url, browser() as started:
        visitor = Visitor(started, url, given.width, given.dark, given.locale, given.lesson)
        for name in given.tabs:
            photograph(visitor, name, views_of(name, given))
        if given.out == DOCS and IN_KOREAN in given.tabs and not given.views:
            other = Visitor(started, url, WIDE, True, "ko-KR")
            photograph(other, IN_KOREAN, [(WIDE, True, DOCS / f"app_{IN_KOREAN}_{WIDE}_ko_dark.jpg")])
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    run_command(main)

"""One page and one browser for all the tests of a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.workflows.small_film import write_small_film_model
from tests.workflows.small_model import write_small_model


@pytest.fixture(scope="module")
def outdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("app")


@pytest.fixture(scope="module")
def page_desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The desk of the page, beside a folder models/ with another model in it, and one of films."""
    from ldm.web.jobs import Desk

    folder = tmp_path_factory.mktemp("elsewhere")
    write_small_model(folder / "models" / "other")
    write_small_film_model(folder / "models" / "films")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield Desk()


@pytest.fixture(scope="module")
def url(page_desk: Any, outdir: Path) -> Iterator[str]:
    from ldm.web.page.build import mount
    from ldm.web.rules import rules_for
    from ldm.web.server import make_app
    from tests.web.serving import serving

    app = make_app(page_desk, rules_for("127.0.0.1", None))
    mount(app, page_desk, outdir)
    with serving(app) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from tests.web.browsing import CHROMIUM, sync_api

    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def shared(browser: Any, url: str) -> Any:
    """A page that several journeys use one after another."""
    from tests.web.browsing import opened

    return opened(browser, url)

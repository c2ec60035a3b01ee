"""The page: a menu of models above, a tab for each thing that can be done, one file a tab."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from ldm.util import UserError
from ldm.web.jobs import Desk
from ldm.web.page import film, gallery, generate, guide, look, personalise, restyle
from ldm.web.page.context import I18N, Page, language_of, text
from ldm.web.page.following import LOOK, status, status_html
from ldm.web.page.theme import CSS, THEME

TABS: dict[str, Callable[[Page], None]] = {
    "generate": generate.build,
    "personalise": personalise.build,
    "restyle": restyle.build,
    "guide": guide.build,
    "look": look.build,
    "film": film.build,
    "gallery": gallery.build,
}
LARGEST_UPLOAD = "64mb"
DROP = Path(__file__).with_name("drop.js")


def build_page(desk: Desk, outdir: Path) -> gr.Blocks:
    """The page over a desk; results go into a folder of ``outdir`` for each tab."""
    with gr.Blocks(title="ldm", analytics_enabled=False, fill_width=True) as blocks:
        page = Page(desk, outdir, blocks)
        with gr.Row(elem_classes="ldm-top"):
            gr.HTML("<h1>ldm</h1>", elem_classes="ldm-name", scale=0, min_width=70)
            page.model = gr.Dropdown(
                [], label=text("model"), interactive=True, elem_id="ldm-model", scale=2, min_width=240
            )
            line = gr.HTML(status_html("", ""), elem_id="model-status", elem_classes="ldm-status", scale=4)
        with gr.Tabs(elem_id="ldm-tabs") as page.tabs:
            for name, build in TABS.items():
                with gr.Tab(text(name), id=name, elem_id=f"tab-{name}", visible=name != "film") as page.tab:
                    build(page)
        _choose_model(page, line)
        page.load(_films(page), None, page.for_films, api_visibility="private")
    _share_nothing(blocks)
    return blocks


def _share_nothing(blocks: gr.Blocks) -> None:
    """Take away the button by which gradio's components would send a picture to a site elsewhere."""
    for block in blocks.blocks.values():
        buttons = getattr(block, "buttons", None)
        if buttons:
            block.buttons = [button for button in buttons if button != "share"]


def _films(page: Page) -> Callable[[], Any]:
    """Show what makes films where there is a model for it."""

    def films() -> Any:
        there = any(one.films for one in page.desk.models())
        shown = [gr.update(visible=there) for _ in page.for_films]
        return shown if len(shown) != 1 else shown[0]

    return films


def mount(app: Any, desk: Desk, outdir: Path) -> Any:
    """Put the page at the root of an app."""
    outdir.mkdir(parents=True, exist_ok=True)
    from ldm.shipped import ROOT

    return gr.mount_gradio_app(
        app, build_page(desk, outdir), path="/", max_file_size=LARGEST_UPLOAD, show_error=True, ssr_mode=False,
        allowed_paths=[str(outdir.resolve()), str(ROOT / "examples")], i18n=I18N, theme=THEME, css=CSS,
        js=DROP.read_text(encoding="utf-8"), footer_links=[], run_history=False, pwa=False, mcp_server=False,
        enable_monitoring=False,
    )  # fmt: skip


def _choose_model(page: Page, line: Any) -> None:
    """The menu: what lies at hand when the page is opened; whoever chooses a model has it opened."""
    desk = page.desk

    def listed(chosen: str | None) -> Any:
        models = [one for one in desk.models() if not one.films]
        names = [one.name for one in models]
        value = chosen if chosen in names else desk.model().name if names else None
        return gr.Dropdown([(f"{one.name}  ({one.about})", one.name) for one in models], value=value)

    async def opened(model: str | None, request: gr.Request) -> Any:
        import asyncio

        try:
            job = desk.open(model)
        except UserError as error:
            yield status_html("error", str(error))
            return
        while not job.is_over:
            yield status(desk, job, language_of(request))
            await asyncio.sleep(LOOK)
        yield status_html("", "") if not job.error else status(desk, job, language_of(request))

    shown = page.load(listed, [page.model], [page.model], api_visibility="private")
    for event in (shown.then, page.model.input):
        event(opened, [page.model], [line], concurrency_limit=None, show_progress="hidden", api_visibility="private")

"""The tab that shows what was made, with its parameters, and takes it further."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gradio as gr

from ldm.pictures.images import read_parameters
from ldm.util import UserError
from ldm.web.page.context import Page, Receiver, language_of, text
from ldm.web.page.pictures import FILES, INPUTS
from ldm.web.page.settings import is_plain, settings_of
from ldm.web.page.texts import say

BIN = "bin"
HIDDEN = {BIN, FILES, INPUTS}  # folders
MOST = 400  # pictures that are shown
SUFFIXES = (".png", ".gif", ".mp4")
SENT = {  # receiver -> what its button says
    "settings": "send_generate", "picture": "send_picture", "restyle": "send_restyle", "guide": "send_guide",
    "look": "send_look", "learn": "send_learn", "film": "send_film",
}  # fmt: skip
PRESS = "() => document.querySelector('#generate-run').click()"


def build(page: Page) -> None:
    """Put the tab where the page is being built."""
    paths, chosen = gr.State([]), gr.State(None)
    with gr.Row(elem_classes="ldm-wide"):
        with gr.Column(scale=6, min_width=360):
            shown = gr.Gallery(
                label=text("gallery"), columns=5, height=620, object_fit="contain", elem_id="gallery-shown",
                interactive=False, allow_preview=False,
            )  # fmt: skip
            refresh = gr.Button(text("refresh"), size="sm", elem_id="gallery-refresh")
        with gr.Column(scale=4, min_width=360):
            picture = gr.Image(label=text("picture_shown"), type="filepath", interactive=False, height=320)
            about = gr.JSON(label=text("parameters"), max_height=300, elem_id="gallery-about")
            told = gr.HTML("", elem_id="gallery-told")
            again = gr.Button(text("again"), variant="primary", size="sm", elem_id="gallery-again")
            with gr.Row():
                buttons = [
                    (gr.Button(text(SENT[name]), size="sm", min_width=110, elem_id=f"gallery-{name}",
                               visible=name != "film"), page.receivers[name])
                    for name in SENT if name in page.receivers
                ]  # fmt: skip
            page.for_films += [button for button, receiver in buttons if receiver.tab == "film"]
            with gr.Row():
                delete = gr.Button(text("delete"), variant="stop", size="sm", elem_id="gallery-delete")
            with gr.Accordion(text("compare"), open=False):
                other = gr.Dropdown([], label=text("compare"))
                both = gr.ImageSlider(label=text("compared"), type="filepath", interactive=False)

    def listed() -> list[Any]:
        found = pictures_in(page.outdir)
        names = [(_name(page, path), str(path)) for path in found]
        return [found, [(str(path), "") for path in found], gr.Dropdown(names)]

    def select(found: list[Path], event: gr.SelectData) -> list[Any]:
        path = found[event.index]
        return [path, str(path), parameters_of(path)]

    outputs = [paths, shown, other]
    refresh.click(listed, None, outputs, api_visibility="private")
    page.tab.select(listed, None, outputs, api_visibility="private", show_progress="hidden")
    shown.select(select, [paths], [chosen, picture, about], api_visibility="private", show_progress="hidden")
    other.input(lambda one, two: (one and str(one), two), [chosen, other], both, api_visibility="private")
    for button, receiver in buttons:
        _send(page, button, receiver, chosen)
    _again(page, again, chosen)

    def throw(path: Path | None, request: gr.Request) -> list[Any]:
        if path is None:
            raise gr.Error(say("nothing_chosen", language_of(request)), print_exception=False)
        place = to_bin(page.outdir, path)
        words = say("deleted", language_of(request), name=path.name, place=place)
        return [words, None, None, None, *listed()]

    delete.click(throw, [chosen], [told, chosen, picture, about, *outputs], api_visibility="private")


def _send(page: Page, button: Any, receiver: Receiver, chosen: Any) -> None:
    wants_settings = receiver is page.receivers.get("settings")

    def send(path: Path | None, request: gr.Request) -> list[Any]:
        if path is None:
            raise gr.Error(say("nothing_chosen", language_of(request)), print_exception=False)
        settings = settings_of(path) if wants_settings else None
        if wants_settings and settings is None:
            raise gr.Error(say("settings_none", language_of(request)), print_exception=False)
        return [gr.Tabs(selected=receiver.tab), *receiver.fill(settings if wants_settings else str(path))]

    button.click(send, [chosen], [page.tabs, *receiver.outputs], api_visibility="private")


def _again(page: Page, button: Any, chosen: Any) -> None:
    """Make a picture anew: its settings go into the fields, its model into the menu, and the button is pressed."""
    receiver = page.receivers["settings"]

    def again(path: Path | None, request: gr.Request) -> list[Any]:
        if path is None:
            raise gr.Error(say("nothing_chosen", language_of(request)), print_exception=False)
        settings = settings_of(path)
        if settings is None or not is_plain(settings):
            raise gr.Error(say("not_again", language_of(request)), print_exception=False)
        names = [one.name for one in page.desk.models() if "/".join(one.ckpt.parts[-2:]) == settings.get("model")]
        return [gr.Tabs(selected=receiver.tab), names[0] if names else gr.skip(), *receiver.fill(settings)]

    filled = button.click(again, [chosen], [page.tabs, page.model, *receiver.outputs], api_visibility="private")
    filled.success(None, None, None, js=PRESS, api_visibility="private")


def _name(page: Page, path: Path) -> str:
    return path.relative_to(page.outdir).as_posix()


def pictures_in(outdir: Path) -> list[Path]:
    """What was made, the newest first; without what is in the bin."""
    found = [
        path
        for path in outdir.rglob("*")
        if path.suffix in SUFFIXES and not HIDDEN & set(path.relative_to(outdir).parts)
    ]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)[:MOST]


def parameters_of(path: Path) -> dict[str, Any]:
    """What is written in a picture, or beside it."""
    try:
        found = read_parameters(path) if path.suffix == ".png" else None
        if found is None and path.with_suffix(".json").is_file():
            found = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (UserError, OSError, ValueError):
        found = None
    return found if isinstance(found, dict) else {"parameters": found}


def to_bin(outdir: Path, path: Path) -> Path:
    """Move a picture (and the record beside it) into the bin, where it takes the place of none.

    Raises:
        UserError: it lies elsewhere, or has gone.
    """
    inside = path.relative_to(outdir) if path.is_relative_to(outdir) else None
    if inside is None or not path.is_file():
        raise UserError(f"there is no picture '{path}' any more")
    from ldm.pictures.numbered import free_path

    place = free_path(outdir / BIN / inside)
    place.parent.mkdir(parents=True, exist_ok=True)
    record = path.with_suffix(".json")
    if record.is_file():
        record.replace(place.with_suffix(".json"))
    return path.replace(place)

"""What every tab of the page gets: the desk, where results go, the model that is chosen, and the other tabs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from ldm.web.jobs import Desk
from ldm.web.page.texts import languages_of, translations

I18N = gr.I18n(**translations())
USUAL = "*"  # in a menu: nothing was chosen


@dataclass
class Receiver:
    """Where another tab can send something: components, and what they become."""

    tab: str
    outputs: list[Any]
    fill: Callable[[Any], list[Any]]


@dataclass
class Page:
    """The page while it is built.

    Attributes:
        outdir: a folder for each tab lies in it, and the bin.
        model: the menu of models; None before it is there.
        tabs, tab: what the tabs are in, and the one that is being built.
        receivers: by name, see ``ldm.web.page.gallery.SENT``.
        blocks: the whole page, for what happens when it is opened.
        for_films: what is only shown where there is a model of films.
    """

    desk: Desk
    outdir: Path
    blocks: gr.Blocks
    model: Any = None
    tabs: Any = None
    tab: Any = None
    receivers: dict[str, Receiver] = field(default_factory=dict)
    for_films: list[Any] = field(default_factory=list)

    def folder(self, tab: str) -> Path:
        """Where the results of a tab go."""
        return self.outdir / tab

    def load(self, *arguments: Any, **more: Any) -> Any:
        """Have something done when the page is opened."""
        return self.blocks.load(*arguments, **more)


def text(key: str) -> Any:
    """A text of the table, which the browser shows in its language."""
    return I18N(key)


def language_of(request: gr.Request) -> str:
    """The language of whoever asks."""
    return languages_of(request.headers.get("accept-language", ""))

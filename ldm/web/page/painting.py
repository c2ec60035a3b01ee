"""Masks that are painted on the page: an editor, and strokes that grow into what they are on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from ldm.pictures.paints import COLOURS
from ldm.util import UserError
from ldm.web.page.context import language_of, text
from ldm.web.page.pictures import picture_and_masks
from ldm.web.page.texts import say

PAINT = tuple(f"{colour}80" for colour in COLOURS)  # half transparent


def mask_editor(label: str, elem_id: str, *, several: bool, height: int, **more: Any) -> Any:
    """An editor to paint masks on a picture, each on a layer of its own if there may be several."""
    return gr.ImageEditor(
        type="pil", image_mode="RGBA", transforms=(), format="png", label=text(label), height=height, elem_id=elem_id,
        layers=gr.LayerOptions(allow_additional_layers=True) if several else False,
        brush=gr.Brush(default_size=32, colors=list(PAINT), default_color=PAINT[0], color_mode="fixed"), **more,
    )  # fmt: skip


def grown(editor: Mapping[str, Any] | None, request: gr.Request) -> Any:
    """What an editor becomes: each layer's paint grown into what it was painted on.

    Raises:
        gr.Error: nothing is painted, or nothing was found.
    """
    from ldm.pictures.painted import layers_of, proposed

    picture, masks = picture_and_masks(editor)
    if picture is None or not masks or editor is None:
        raise gr.Error(say("no_paint", language_of(request)), print_exception=False)
    try:
        found = [proposed(picture, mask) for mask in masks]
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from error
    return {"background": editor["background"], "layers": layers_of(found), "composite": editor["background"]}

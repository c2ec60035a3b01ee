"""What is learned of each picture: its square as it is cut, and the mask that was painted on it or found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr
from PIL import Image

from ldm.pictures.images import load_image
from ldm.util import UserError
from ldm.web.page.context import language_of, text
from ldm.web.page.painting import grown, mask_editor
from ldm.web.page.pictures import editor_value, picture_and_masks
from ldm.web.page.texts import say

if TYPE_CHECKING:
    from torch import Tensor

KEPT_SIDE = 1024  # pixels of the longer side of a mask that is kept
Kept = Mapping[str, Image.Image]  # a picture's file -> its mask, in grey


def build(pictures: Any, crop: Any) -> Any:
    """Put the squares and the editor of their masks where the page is being built; gives the State of the masks."""
    kept, chosen = gr.State({}), gr.State(None)
    squares = gr.Gallery(
        label=text("learn_squares"), columns=5, height=160, object_fit="contain", interactive=False,
        allow_preview=False, elem_id="learn-squares", format="png",
    )  # fmt: skip
    with gr.Accordion(text("learn_part"), open=False, elem_id="learn-part") as part:
        editor = mask_editor("learn_mask", "learn-mask", several=False, height=360, sources=())
        with gr.Row():
            find = gr.Button(text("learn_find"), size="sm", min_width=110, elem_id="learn-find")
            find_all = gr.Button(text("learn_find_all"), size="sm", min_width=110, elem_id="learn-find-all")
            whole = gr.Button(text("learn_whole"), size="sm", min_width=110, elem_id="learn-whole")
    seen = [pictures, crop, kept]
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    for event in (pictures.change, crop.input):
        event(squares_of, seen, squares, **quiet)
    pictures.change(lambda: [None, None], None, [chosen, editor], **quiet)
    squares.select(_opened, [pictures, kept], [chosen, editor, part], **quiet)
    painted = editor.change(_keep, [editor, chosen, kept], kept, trigger_mode="always_last", **quiet)
    painted.then(squares_of, seen, squares, **quiet)
    find.click(_found, editor, editor, api_visibility="private")
    for button, masks in ((find_all, _found_in_all), (whole, lambda paths: {})):
        changed = button.click(masks, pictures, kept, api_visibility="private")
        changed.success(_again, [chosen, kept], editor, **quiet).then(squares_of, seen, squares, **quiet)
    return kept


def squares_of(paths: Sequence[str] | None, crop: str, kept: Kept) -> list[Any]:
    """What is learned of each picture: the thing in colour, and darker what a mask leaves out.

    Raises:
        gr.Error: one cannot be read, no thing is found in it, or the square has nothing of its mask.
    """
    from ldm.pictures.painted import DIMMED, preview
    from ldm.pictures.subjects import square_of

    shown = []
    try:
        for path in paths or ():
            image = load_image(path)
            square = square_of(image, crop, mask_of(kept.get(path), image))
            dimmed = DIMMED if path in kept else 1.0
            shown.append(square.picture if square.mask is None else preview(square.picture, [square.mask], dimmed))
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from error
    return shown


def mask_of(grey: Image.Image | None, image: Image.Image) -> Tensor | None:
    """A kept mask as [H, W] in [0, 1], of its picture's size."""
    if grey is None:
        return None
    import numpy as np
    import torch

    return torch.from_numpy(np.asarray(grey.resize(image.size, Image.Resampling.BILINEAR), np.float32) / 255)


def _grey(mask: Tensor) -> Image.Image:
    grey = Image.fromarray((mask * 255).round().byte().numpy())
    grey.thumbnail((KEPT_SIDE, KEPT_SIDE))
    return grey


def _opened(paths: Sequence[str], kept: Kept, event: gr.SelectData) -> list[Any]:
    """The picture whose square was clicked on, to be painted on."""
    path = paths[event.index]
    return [path, _painted(path, kept), gr.Accordion(open=True)]


def _painted(path: str, kept: Kept) -> Any:
    from ldm.pictures.painted import layers_of

    value = editor_value(path)
    mask = mask_of(kept.get(path), value["background"])
    return value if mask is None else {**value, "layers": layers_of([mask])}


def _again(chosen: str | None, kept: Kept) -> Any:
    return None if chosen is None else _painted(chosen, kept)


def _keep(editor: Mapping[str, Any] | None, chosen: str | None, kept: Kept) -> dict[str, Image.Image]:
    """The masks with that of the picture in the editor; without paint it has none."""
    picture, masks = picture_and_masks(editor)
    if picture is None or chosen is None:
        return dict(kept)
    others = {path: mask for path, mask in kept.items() if path != chosen}
    return {**others, chosen: _grey(masks[0])} if masks else others


def _found(editor: Mapping[str, Any] | None, request: gr.Request) -> Any:
    """The paint grown into what it is on; without any, the thing that differs from the picture's rim."""
    picture, masks = picture_and_masks(editor)
    if picture is None or editor is None:
        raise gr.Error(say("learn_click", language_of(request)), print_exception=False)
    if masks:
        return grown(editor, request)
    from ldm.pictures.painted import layers_of

    return {**editor, "layers": layers_of([_thing(picture)]), "composite": editor["background"]}


def _found_in_all(paths: Sequence[str] | None) -> dict[str, Image.Image]:
    return {path: _grey(_thing(load_image(path))) for path in paths or ()}


def _thing(picture: Image.Image) -> Tensor:
    from ldm.pictures.subjects import subject_mask

    try:
        return subject_mask(picture)
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from error

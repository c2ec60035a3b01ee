"""What is learned of each picture: its square as it is cut, and the mask of the thing where only that is learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr
from PIL import Image

from ldm.pictures.images import load_image
from ldm.util import UserError
from ldm.web.page.context import text

if TYPE_CHECKING:
    from torch import Tensor

KEPT_SIDE = 1024  # pixels of the longer side of a mask that is kept
Kept = Mapping[str, Image.Image]  # a picture's file -> its mask, in grey


def build(pictures: Any, crop: Any) -> Any:
    """Put the squares where the page is being built; gives the State of the masks."""
    kept = gr.State({})
    squares = gr.Gallery(
        label=text("learn_squares"), columns=5, height=160, object_fit="contain", interactive=False,
        allow_preview=False, elem_id="learn-squares", format="png",
    )  # fmt: skip
    with gr.Row():
        find_all = gr.Button(text("learn_find_all"), size="sm", min_width=110, elem_id="learn-find-all")
        whole = gr.Button(text("learn_whole"), size="sm", min_width=110, elem_id="learn-whole")
    seen = [pictures, crop, kept]
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    for event in (pictures.change, crop.input):
        event(squares_of, seen, squares, **quiet)
    changes = [
        squares.select(_changed, [pictures, kept], kept, **quiet),
        find_all.click(_found_in_all, pictures, kept, api_visibility="private"),
        whole.click(lambda: {}, None, kept, **quiet),
    ]
    for change in changes:
        change.success(squares_of, seen, squares, **quiet)
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


def _changed(paths: Sequence[str], kept: Kept, event: gr.SelectData) -> dict[str, Image.Image]:
    """The masks with one of the picture that was clicked on; without it where there was one."""
    path = paths[event.index]
    others = {one: mask for one, mask in kept.items() if one != path}
    return others if path in kept else {**others, path: _thing(path)}


def _found_in_all(paths: Sequence[str] | None) -> dict[str, Image.Image]:
    return {path: _thing(path) for path in paths or ()}


def _thing(path: str) -> Image.Image:
    """The mask of the thing in a picture, in grey."""
    from ldm.pictures.subjects import subject_mask

    try:
        mask = subject_mask(load_image(path))
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from error
    grey = Image.fromarray((mask * 255).round().byte().numpy())
    grey.thumbnail((KEPT_SIDE, KEPT_SIDE))
    return grey

"""Draw masks over a content in the browser: ``python -m scripts.draw_mask photo.jpg``, then open the address it prints.

A layer for each style: paint with the brush, add a layer for the next style, press "Save". The masks are written
beside the content, <content>_mask.npy for one layer and <content>_mask0.npy, <content>_mask1.npy, ... for several.
Needs gradio: pip install -e '.[web]'
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ldm.pictures.images import load_image
from ldm.pictures.masks import feather, find_masks, mask_path, read_mask, write_mask
from ldm.util import MissingPartError, UserError, run_command

COLOURS = ("#e6194bff", "#3cb44bff", "#4363d8ff", "#f58231ff", "#911eb4ff")


def layers_to_masks(layers: Sequence[NDArray[np.uint8]], size: tuple[int, int], radius: float = 0.0) -> list[Tensor]:
    """Masks [H, W] of the layers on which something is painted: how opaque the paint is, whatever its colour.

    Args:
        layers: [h, w, 4] RGBA, of the picture's size or scaled from it.
        size: (height, width) of the picture.
        radius: of the soft edge, in pixels.

    Raises:
        UserError: nothing is painted, or a layer is no RGBA picture.
    """
    masks = []
    for number, layer in enumerate(layers, start=1):
        if layer.ndim != 3 or layer.shape[2] != 4:
            raise UserError(f"layer {number} has the shape {list(layer.shape)}; height, width and 4 would be right")
        alpha = Image.fromarray(np.ascontiguousarray(layer[..., 3]))
        if alpha.size != size[::-1]:
            alpha = alpha.resize(size[::-1], Image.Resampling.BILINEAR)
        opacity = torch.from_numpy(np.asarray(alpha, np.float32) / 255)
        if bool(opacity.any()):
            masks.append(feather(opacity, radius))
    if not masks:
        raise UserError("nothing is painted yet")
    return masks


def save_masks(content: Path, masks: Sequence[Tensor]) -> list[Path]:
    """Write masks under the names that are found beside a content; masks it had before are removed.

    Raises:
        UserError: the folder cannot be written.
    """
    paths = [mask_path(content)] if len(masks) == 1 else [mask_path(content, i) for i in range(len(masks))]
    for path, mask in zip(paths, masks, strict=True):
        write_mask(mask, path)
    while others := [path for path in find_masks(content) if path not in paths]:
        for path in others:
            path.unlink()
    return paths


def masks_to_layers(masks: Sequence[Tensor]) -> list[NDArray[np.uint8]]:
    """RGBA layers to go on painting: each mask in a colour of its own."""
    layers = []
    for number, mask in enumerate(masks):
        colour = COLOURS[number % len(COLOURS)]
        layer = np.empty((*mask.shape, 4), np.uint8)
        layer[..., :3] = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        layer[..., 3] = (mask * 255).round().to(torch.uint8).numpy()
        layers.append(layer)
    return layers


def page(content: Path) -> Any:
    """The page as a gradio app.

    Raises:
        UserError: the content cannot be read.
        MissingPartError: gradio is not installed.
    """
    try:
        import gradio as gr
    except ImportError as error:
        raise MissingPartError(
            "drawing masks needs gradio, which is not installed: pip install -e '.[web]'"
        ) from error
    image = load_image(content)
    size = (image.height, image.width)
    masks = [read_mask(path, [size]) for path in find_masks(content)]
    background = np.asarray(image)
    start = {"background": background, "layers": masks_to_layers(masks), "composite": background}

    def save(value: Mapping[str, Any], radius: float) -> str:
        try:
            made = layers_to_masks([np.asarray(layer) for layer in value["layers"]], size, radius)
            return "Saved: " + ", ".join(str(path) for path in save_masks(content, made))
        except UserError as error:
            return f"Not saved: {error}"

    with gr.Blocks(title=f"Masks for {content.name}") as app:
        gr.Markdown(f"**{content.name}**: paint where a style goes; a layer for each style.")
        editor = gr.ImageEditor(
            start, type="numpy", image_mode="RGBA", format="png", sources=(), transforms=(), fixed_canvas=True,
            canvas_size=image.size, brush=gr.Brush(default_size=24, colors=list(COLOURS), color_mode="fixed"),
            layers=gr.LayerOptions(allow_additional_layers=True), label="content",
        )  # fmt: skip
        radius = gr.Slider(0, 20, value=0, step=0.5, label="soft edge, in pixels")
        button, told = gr.Button("Save"), gr.Textbox(label="saved", interactive=False)
        button.click(save, [editor, radius], told)
    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("content", type=Path, help="the picture to draw over")
    parser.add_argument("--port", type=int, help="of the page (7860 or the next that is free)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (this machine only)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args()
    page(options.content).launch(server_name=options.host, server_port=options.port)


if __name__ == "__main__":
    run_command(main)

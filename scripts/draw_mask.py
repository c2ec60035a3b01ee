"""Draw masks over a content in the browser, see them, and restyle: open the address that is printed.

    python -m scripts.draw_mask photo.jpg
    python -m scripts.draw_mask photo.jpg --sty painting.jpg other.jpg     # a style for each layer
    python -m scripts.draw_mask photo.jpg --ckpt MODEL.ckpt --config MODEL.yaml --longest 768

A layer for each style: paint with the brush, add a layer for the next style, press "Save", or "Restyle" at once. The
masks are written beside the content, <content>_mask.npy for one layer and <content>_mask0.npy, <content>_mask1.npy, ...
for several. Needs gradio: pip install -e '.[web]'
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ldm.arguments import Parser
from ldm.pictures.images import load_image
from ldm.pictures.masks import find_masks, mask_path, read_mask, write_mask
from ldm.pictures.painted import OPACITY, layers_to_masks, masks_to_layers, preview
from ldm.pictures.paints import COLOURS
from ldm.shipped import SAMPLES
from ldm.util import MissingPartError, UserError, run_command
from ldm.web.rules import Rules, rules_for
from ldm.web.server import address, free_port, listen

SHOWN = 1024  # the longer side on the page, in pixels, whatever the picture's size
TOOLS = 120  # pixels of the editor's own tools, above and below the picture
AROUND = 110  # and of what the page has above and below the editor
LARGEST_UPLOAD = "64mb"
WEB = "pip install -e '.[web]'"


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


def restyle(options: argparse.Namespace, masks: Sequence[Tensor], styles: Sequence[str]) -> list[Path]:
    """The content restyled inside the masks, which are saved beside it; where the results are.

    Raises:
        UserError: not one style a mask, or something else that does not fit; see ``styleid``.
    """
    from ldm.workflows.restyle.plan import StyleIDOptions
    from ldm.workflows.restyle.styleid import styleid

    if len(styles) != len(masks) and not (len(masks) == 1 and styles):
        raise UserError(f"{len(masks)} layers need {len(masks)} styles, got {len(styles)}")
    paths = save_masks(options.content, masks)
    results: list[Path] = []
    for group in [[style] for style in styles] if len(masks) == 1 else [styles]:
        pairs = options.outdir / "pairs.txt"
        pairs.parent.mkdir(parents=True, exist_ok=True)
        pairs.write_text(",".join(f'"{Path(one).resolve()}"' for one in (options.content, *group)) + "\n", "utf-8")
        asked = StyleIDOptions(
            pairs=str(pairs), masks=[str(path) for path in paths], output_path=str(options.outdir), no_sheet=True,
            ckpt=options.ckpt, model_config=options.config, longest=options.longest, progress=False,
        )  # fmt: skip
        results += [result.path for result in styleid(asked)]
        pairs.unlink()
    return results


class Page:
    """What the buttons of the page do: values of the editor in, what is shown out."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Raises UserError: the content or a mask beside it cannot be read."""
        self.options = options
        self.image = load_image(options.content)
        self.size = (self.image.height, self.image.width)
        scale = SHOWN / max(self.size)
        self.shown = (max(1, round(self.size[0] * scale)), max(1, round(self.size[1] * scale)))

    def start(self) -> dict[str, Any]:
        """The editor's value at first: the picture, large, and the masks that it has."""
        background = np.asarray(self.image.resize(self.shown[::-1], Image.Resampling.LANCZOS))
        masks = [read_mask(path, [self.size]) for path in find_masks(self.options.content)]
        return {"background": background, "layers": masks_to_layers(masks, self.shown), "composite": background}

    def masks(self, value: Mapping[str, Any], radius: float) -> list[Tensor]:
        return layers_to_masks([np.asarray(layer) for layer in value["layers"]], self.size, radius)

    def see(self, value: Mapping[str, Any], radius: float) -> Image.Image:
        """The preview; before anything is painted, the picture."""
        try:
            return preview(self.image, self.masks(value, radius))
        except UserError:
            return self.image

    def save(self, value: Mapping[str, Any], radius: float) -> str:
        try:
            made = self.masks(value, radius)
            return "Saved: " + ", ".join(path.name for path in save_masks(self.options.content, made))
        except UserError as error:
            return f"Not saved: {error}"

    def restyle(self, value: Mapping[str, Any], radius: float, styles: Sequence[str]) -> tuple[list[str], str]:
        """The results, and a sentence about them."""
        try:
            made = [str(path) for path in restyle(self.options, self.masks(value, radius), styles or [])]
            return made, f"Made: {', '.join(made)}"
        except UserError as error:
            return [], f"Not restyled: {error}"


def page(options: argparse.Namespace) -> Any:
    """The page as a gradio app.

    Raises:
        UserError: the content cannot be read.
        MissingPartError: gradio, or something that it needs, is not installed.
    """
    gr = load_gradio()
    acts = Page(options)
    styles = [str(path) for path in options.sty] or [str(path) for path in sorted((SAMPLES / "sty").iterdir())]
    with gr.Blocks(title=f"Masks for {options.content.name}", fill_width=True) as app:
        gr.Markdown(f"**{options.content.name}**: paint where a style goes; a layer for each style.")
        with gr.Row():
            with gr.Column(scale=4):
                editor = gr.ImageEditor(
                    acts.start(), type="numpy", image_mode="RGBA", format="png", sources=(), transforms=(),
                    fixed_canvas=True, canvas_size=acts.shown[::-1],
                    height=f"min({acts.shown[0] + TOOLS}px, calc(100vh - {AROUND}px))",
                    brush=gr.Brush(default_size=32, colors=[(colour, OPACITY) for colour in COLOURS],
                                   default_color=(COLOURS[0], OPACITY), color_mode="fixed"),
                    layers=gr.LayerOptions(allow_additional_layers=True), label="content",
                )  # fmt: skip
            with gr.Column(scale=1, min_width=260):
                radius = gr.Slider(0, 20, value=0, step=0.5, label="soft edge, in pixels")
                named = [(Path(style).name, style) for style in styles]
                chosen = gr.Dropdown(named, value=styles[:1], multiselect=True, label="styles, one for each layer")
                save, go = gr.Button("Save"), gr.Button("Restyle", variant="primary")
                told = gr.Textbox(label="what happened", interactive=False)
        with gr.Row():
            seen = gr.Image(acts.see(acts.start(), 0), label="the masks", interactive=False)
            made = gr.Gallery(label="restyled")
        for changed in (editor.change, radius.change):
            changed(acts.see, [editor, radius], seen, trigger_mode="always_last", show_progress="hidden")
        save.click(acts.save, [editor, radius], told)
        go.click(acts.restyle, [editor, radius, chosen], [made, told])
    return app


def load_gradio() -> Any:
    """The library of the page.

    Raises:
        MissingPartError: it, or something that it needs, is not installed; the sentence says which.
    """
    try:
        import gradio
    except ImportError as error:
        if (error.name or "gradio") == "gradio":
            raise MissingPartError(f"drawing masks needs gradio, which is not installed: {WEB}") from error
        raise MissingPartError(f"drawing masks needs gradio, which cannot be loaded ({error}): {WEB}") from error
    return gradio


def server(app: Any, rules: Rules, outdir: Path) -> Any:
    """The page behind the guard that app.py's page has."""
    from fastapi import FastAPI

    from ldm.web.guard import Guard

    web = FastAPI()
    web.add_middleware(Guard, rules=rules)
    return load_gradio().mount_gradio_app(
        web, app, path="/", max_file_size=LARGEST_UPLOAD, allowed_paths=[str(outdir.resolve())]
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("content", type=Path, help="the picture to draw over")
    parser.add_argument("--sty", type=Path, nargs="+", default=[], metavar="FILE", help="styles to offer (the samples)")
    parser.add_argument("--ckpt", metavar="FILE", help="weights in any format (the small model)")
    parser.add_argument("--config", metavar="FILE", help="the model's YAML (config.yaml beside the weights)")
    parser.add_argument("--longest", type=int, metavar="N", help="longer side of what is made, in pixels (512)")
    parser.add_argument("--outdir", type=Path, default=Path("outputs/styleid"), metavar="FOLDER",
                        help="where results go (outputs/styleid)")  # fmt: skip
    parser.add_argument("--port", type=int, help="of the page (7860 or the next that is free)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (this machine only)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse()
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before it is imported, which looks for newer versions
    app = page(options)
    rules = rules_for(options.host, None)
    port = free_port(options.host, options.port)
    print(f"{address(options.host, port)} (Ctrl-C ends it)", flush=True)
    if rules.token:
        print(f"token: {rules.token} (the password; any name will do)", flush=True)
    listen(server(app, rules, options.outdir), options.host, port)


if __name__ == "__main__":
    run_command(main)

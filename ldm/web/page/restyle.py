"""The tab that gives photographs the manner of paintings, each within its mask."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from ldm.pictures.images import load_image
from ldm.pictures.paints import COLOURS
from ldm.util import UserError
from ldm.web.jobs import Job, Task
from ldm.web.page.context import Page, Receiver, language_of, text
from ldm.web.page.following import Following, notes_html
from ldm.web.page.pictures import editor_value, file_of, paintings, photographs, picture_and_masks
from ldm.web.page.texts import PageError, say

KIND = "restyle"
CACHE = "inversions"
PAINT = tuple(f"{colour}80" for colour in COLOURS)  # half transparent
FIRST_STEPS = 20


def build(page: Page) -> None:
    """Put the tab where the page is being built."""
    with gr.Row(elem_classes="ldm-wide"):
        with gr.Column(scale=5, min_width=360):
            content = gr.Dropdown(
                [(path.stem, str(path)) for path in photographs()], value=None, label=text("content_sample"),
                elem_id="restyle-sample",
            )  # fmt: skip
            editor = gr.ImageEditor(
                type="pil", image_mode="RGBA", sources=("upload", "clipboard"), transforms=(), format="png",
                layers=gr.LayerOptions(allow_additional_layers=True), label=text("content"), height=420,
                brush=gr.Brush(default_size=32, colors=list(PAINT), default_color=PAINT[0], color_mode="fixed"),
                elem_id="restyle-editor",
            )  # fmt: skip
            propose = gr.Button(text("propose"), size="sm", elem_id="restyle-propose")
            chosen = _styles()
        with gr.Column(scale=6, min_width=360):
            before_after = gr.ImageSlider(
                label=text("before_after"), type="pil", interactive=False, max_height=520, elem_id="restyle-result"
            )
            sliders = _sliders()
            following = Following.build(page, KIND)
            notes = gr.HTML("", elem_id="restyle-notes")
    inputs = [editor, chosen, *sliders.values()]
    outputs = [before_after, notes]
    following.connect(inputs, _ask(page), outputs, _shown)
    for name in ("gamma", "T", "detail"):
        following.start_on(sliders[name].release, inputs, _ask(page), outputs, _shown, replaces=True)
    content.input(editor_value, content, editor, api_visibility="private")
    propose.click(_propose, editor, editor, api_visibility="private")
    page.receivers["restyle"] = Receiver(KIND, [editor], lambda path: [editor_value(path)])


def _styles() -> Any:
    """The shipped paintings to click on, a way to bring others, and the list of those that are chosen."""
    at_hand = gr.State([str(path) for path in paintings()])
    shown = gr.Gallery(
        [(str(path), path.stem.replace("_", " ")) for path in paintings()], label=text("styles"), columns=6, height=190,
        allow_preview=False, object_fit="cover", interactive=False, elem_id="restyle-styles",
    )  # fmt: skip
    chosen = gr.Dropdown(
        [(path.stem, str(path)) for path in paintings()], multiselect=True, label=text("styles_chosen"),
        elem_id="restyle-chosen",
    )  # fmt: skip
    own = gr.UploadButton(text("styles_own"), file_types=["image"], file_count="multiple", size="sm")

    def toggle(files: list[str], now: list[str], event: gr.SelectData) -> list[str]:
        path = files[event.index]
        return [one for one in now if one != path] if path in now else [*now, path]

    def add(new: Sequence[str], files: list[str], now: list[str]) -> list[Any]:
        files, now = [*new, *files], [*now, *new]
        names = [(Path(path).stem, path) for path in files]
        return [files, [(path, name) for name, path in names], gr.Dropdown(names, value=now)]

    shown.select(toggle, [at_hand, chosen], chosen, show_progress="hidden", api_visibility="private")
    own.upload(add, [own, at_hand, chosen], [at_hand, shown, chosen], api_visibility="private")
    return chosen


def _sliders() -> dict[str, Any]:
    sliders: dict[str, Any] = {}
    with gr.Row():
        sliders["gamma"] = gr.Slider(
            0, 1, value=0.75, step=0.05, label=text("gamma"), min_width=140, elem_id="restyle-gamma"
        )
        sliders["T"] = gr.Slider(0.5, 4, value=1.5, step=0.1, label=text("temperature"), min_width=140)
        sliders["detail"] = gr.Slider(0, 1, value=0, step=0.05, label=text("detail"), min_width=140)
    with gr.Row():
        sliders["steps"] = gr.Slider(
            5, 50, value=FIRST_STEPS, step=5, label=text("steps"), min_width=140, elem_id="restyle-steps"
        )
        sliders["longest"] = gr.Slider(
            64, 1024, value=256, step=64, label=text("longest"), min_width=140, elem_id="restyle-longest"
        )
        sliders["keep_color"] = gr.Checkbox(False, label=text("keep_colour"), min_width=140)
    return sliders


def _ask(page: Page) -> Callable[..., tuple[Task, Callable[[Any], Any]]]:
    def ask(
        editor: Mapping[str, Any], styles: Sequence[str], gamma: float, temperature: float, detail: float, steps: float,
        longest: float, keep_color: bool,
    ) -> tuple[Task, Callable[[Any], Any]]:  # fmt: skip
        picture, masks = picture_and_masks(editor)
        if picture is None:
            raise PageError("no_photograph")
        if not styles:
            raise PageError("no_style")
        outdir = page.folder(KIND)
        content = file_of(picture, outdir, "photograph")
        how = {
            "gamma": gamma, "T": temperature, "detail": detail, "ddim_inv_steps": int(steps),
            "save_feat_steps": int(steps), "longest": int(longest), "keep_color": keep_color,
        }  # fmt: skip
        return restyling(outdir, content, [str(Path(one).resolve()) for one in styles], masks, how), _kept

    return ask


def restyling(outdir: Path, content: Path, styles: Sequence[str], masks: Sequence[Any], how: Mapping[str, Any]) -> Task:
    """The workflow that restyles a photograph: by one style, or by several that its masks share out."""

    def task(studio: Any, watch: Any) -> None:
        from ldm.pictures.masks import write_mask
        from ldm.workflows.restyle.plan import StyleIDOptions
        from ldm.workflows.restyle.styleid import styleid

        with tempfile.TemporaryDirectory() as folder:
            pairs = Path(folder) / "pairs.txt"
            pairs.write_text(",".join(f'"{one}"' for one in (content.resolve(), *styles)) + "\n", "utf-8")
            files = [Path(folder) / f"mask{number}.npy" for number in range(len(masks))]
            for mask, file in zip(masks, files, strict=True):
                write_mask(mask, file)
            options = StyleIDOptions(
                pairs=str(pairs), masks=[str(file) for file in files] or ["none"], output_path=str(outdir),
                precomputed=str(outdir / CACHE), features="replay", no_sheet=True, progress=False, **how,
            )  # fmt: skip
            for result in styleid(options, studio, watch):
                if result.skipped:  # it was there already; the others have been handed on as they were made
                    watch.result(result)

    return task


def _kept(result: Any) -> tuple[str, str]:
    """What is kept of a result: the photograph's file, and its own."""
    return str(result.pair.content), str(result.path)


def _shown(job: Job) -> list[Any]:
    """The photograph and its result, or what it looks like by now."""
    if not job.results:
        if not job.pictures:
            return [gr.skip(), notes_html(job)]
        preview = job.pictures[0].resize((512, round(512 * job.pictures[0].height / job.pictures[0].width)))
        return [(preview, preview), notes_html(job)]
    before, after = (load_image(path) for path in job.results[-1])
    return [(before.resize(after.size, Image.Resampling.LANCZOS), after), notes_html(job)]


def _propose(editor: Mapping[str, Any] | None, request: gr.Request) -> Any:
    """Each layer's paint grown into what it was painted on."""
    from ldm.pictures.painted import layers_of, proposed

    picture, masks = picture_and_masks(editor)
    if picture is None or not masks or editor is None:
        raise gr.Error(say("no_paint", language_of(request)), print_exception=False)
    try:
        found = [proposed(picture, mask) for mask in masks]
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from error
    return {"background": editor["background"], "layers": layers_of(found), "composite": editor["background"]}

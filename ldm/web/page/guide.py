"""The tab that guides by attention: words in boxes, words that weigh more or less, a picture edited by its prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from ldm.web.jobs import Job, Task
from ldm.web.page.context import Page, Receiver, text
from ldm.web.page.following import Following, notes_html
from ldm.web.page.texts import PageError
from ldm.workflows.guide.options import WAYS

BOXES, EDIT = "guide-box", "guide-edit"
SLIDERS = 10  # words of a prompt that have one
SCRIPT = Path(__file__).with_name("boxes.js")
BOARD = """
<label class="ldm-board-word">{word} <input type="text" required aria-describedby="guide-boxes"></label>
<svg viewBox="0 0 100 100" role="img" aria-label="{board}" class="ldm-board"></svg>
"""
Ask = Callable[..., tuple[Task, Callable[[Any], Any]]]


def build(page: Page) -> None:
    """Put the tab where the page is being built."""
    with gr.Tabs():
        with gr.Tab(text("guide_boxes"), id="boxes"):
            _boxes(page)
        with gr.Tab(text("guide_edit"), id="edit"):
            _edits(page)


def _boxes(page: Page) -> None:
    with gr.Row(elem_classes="ldm-wide"):
        with gr.Column(scale=5, min_width=360):
            prompt = gr.Textbox(label=text("prompt"), lines=2, elem_id="guide-prompt")
            gr.HTML(
                BOARD.format(word="Word / 단어 / 词", board="Draw boxes here; the field below takes them as text"),
                js_on_load=SCRIPT.read_text(encoding="utf-8"), elem_id="guide-board",
            )  # fmt: skip
            boxes = gr.Textbox(
                label=text("boxes"), info=text("boxes_hint"), lines=2, elem_id="guide-boxes",
                placeholder="red circle: 0.05 0.3 0.45 0.7; blue star: 0.55 0.3 0.95 0.7",
            )  # fmt: skip
            layout = gr.Radio(list(WAYS), label=text("layout"), info=text("layout_hint"))
            excite = gr.Textbox(label=text("excite"), info=text("excite_hint"), max_lines=1)
            usual = _usual(BOXES)
            following = Following.build(page, BOXES)
        with gr.Column(scale=6, min_width=360):
            results = gr.Gallery(
                label=text("results"), columns=2, object_fit="contain", height=560, interactive=False, format="png",
                elem_id="guide-results",
            )  # fmt: skip
            notes = gr.HTML("")

    def ask(
        prompt: str, boxes: str, layout: str | None, excite: str, seed: float, steps: float
    ) -> tuple[Task, Callable[[Any], Any]]:
        if not boxes.strip() and not excite.strip():
            raise PageError("no_box")
        asked = {"prompt": prompt, "boxes": boxes.strip() or None, "excite": excite.strip() or None}
        asked["layout"] = layout if asked["boxes"] else None
        return _txt2img(page, BOXES, asked, seed, steps), _kept

    def shown(job: Job) -> list[Any]:
        pictures = [picture for kept in job.results for picture in kept]
        return [[*pictures, *([] if job.is_over else job.pictures)], notes_html(job)]

    following.connect([prompt, boxes, layout, excite, *usual], ask, [results, notes], shown)


def _usual(kind: str) -> tuple[Any, Any]:
    with gr.Row():
        seed = gr.Number(42, precision=0, label=text("seed"), info=text("seed_hint"), min_width=120)
        steps = gr.Slider(0, 150, value=0, step=1, label=text("steps"), info=text("size_hint"), min_width=160,
                          elem_id=f"{kind}-steps")  # fmt: skip
    return seed, steps


def _edits(page: Page) -> None:
    with gr.Row(elem_classes="ldm-wide"):
        with gr.Column(scale=5, min_width=360):
            prompt = gr.Textbox(label=text("prompt_first"), lines=2, elem_id="edit-prompt")
            second = gr.Textbox(label=text("prompt_second"), info=text("prompt_second_hint"), lines=2,
                                elem_id="edit-second")  # fmt: skip
            with gr.Accordion(text("weights"), open=True):
                sliders = [
                    gr.Slider(-3, 4, value=1, step=0.25, label="", visible=False, elem_id=f"edit-weight-{number}")
                    for number in range(SLIDERS)
                ]  # fmt: skip
            blend = gr.Textbox(label=text("blend"), info=text("blend_hint"), max_lines=1)
            with gr.Accordion(text("edit_photo"), open=False):
                photo = gr.Image(type="filepath", sources=["upload", "clipboard"], label=text("picture_shown"),
                                 height=260, format="png")  # fmt: skip
            usual = _usual(EDIT)
            following = Following.build(page, EDIT)
        with gr.Column(scale=6, min_width=360):
            both = gr.ImageSlider(label=text("before_after"), type="pil", interactive=False, elem_id="edit-result")
            notes = gr.HTML("")
    prompts = [prompt, second]
    for one in prompts:
        one.change(
            _sliders_of, prompts, sliders, show_progress="hidden", api_visibility="private", trigger_mode="always_last"
        )

    def ask(
        prompt: str, second: str, blend: str, photo: str | None, seed: float, steps: float, *weights: float
    ) -> tuple[Task, Callable[[Any], Any]]:
        changed = {
            word: weight for word, weight in zip(words_of(second or prompt), weights, strict=False) if weight != 1
        }
        if not second.strip() and not changed:
            raise PageError("no_edit")
        asked = {
            "prompt": prompt, "edit": second.strip() or None, "reweight": changed or None,
            "blend": blend.strip() or None, "edit_photo": photo,
        }  # fmt: skip
        return _txt2img(page, EDIT, asked, seed, steps), _kept

    def shown(job: Job) -> list[Any]:
        return [job.results[-1] if job.results else gr.skip(), notes_html(job)]

    following.connect([*prompts, blend, photo, *usual, *sliders], ask, [both, notes], shown)
    page.receivers["guide"] = Receiver("guide", [photo], lambda path: [path])


def words_of(prompt: str) -> list[str]:
    """The words of a prompt that have a slider, each once."""
    return list(dict.fromkeys(word.strip(".,;:!?") for word in prompt.split() if word.strip(".,;:!?")))[:SLIDERS]


def _sliders_of(prompt: str, second: str) -> list[Any]:
    words: Sequence[str] = words_of(second or prompt)
    return [
        gr.Slider(label=words[number], visible=True) if number < len(words) else gr.Slider(value=1, visible=False)
        for number in range(SLIDERS)
    ]


def _txt2img(page: Page, kind: str, asked: dict[str, Any], seed: float, steps: float) -> Task:
    outdir = page.folder("guide") / kind

    def task(studio: Any, watch: Any) -> None:
        from ldm.workflows.txt2img import Txt2ImgOptions, txt2img

        options = Txt2ImgOptions(
            **asked, seed=-1 if seed is None else int(seed), steps=int(steps) or None, n_samples=1,
            outdir=str(outdir), skip_grid=True, progress=False,
        )  # fmt: skip
        txt2img(options, studio, watch)

    return task


def _kept(made: Any) -> tuple[Any, Any]:
    """Two pictures: with the boxes over it and without, or before and after an edit."""
    beside = made.source if made.source is not None else made.boxed
    return (beside if beside is not None else made.image), made.image

"""The tab that looks inside: where a place looks, where a word is seen, what a feature holds, content against style."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from ldm.web.jobs import Job, Task
from ldm.web.page.context import USUAL, Page, Receiver, text
from ldm.web.page.following import Following, notes_html
from ldm.web.page.pictures import paintings, photographs
from ldm.web.page.texts import PageError

KIND = "look"
STEPS = 20
LONGEST = 256
EVERY = -1  # head: the mean over all


def build(page: Page) -> None:
    """Put the tab where the page is being built."""
    with gr.Row(elem_classes="ldm-wide"):
        with gr.Column(scale=5, min_width=360):
            sample = gr.Dropdown(
                [(path.stem, str(path)) for path in photographs()], value=None, label=text("content_sample"),
                elem_id="look-sample",
            )  # fmt: skip
            picture = gr.Image(
                type="filepath", sources=["upload", "clipboard"], label=text("look_picture"), height=340,
                elem_id="look-picture", format="png", interactive=True,
            )  # fmt: skip
            asked = _asked()
        with gr.Column(scale=6, min_width=360):
            seen = gr.Image(label=text("look_seen"), interactive=False, height=420, elem_id="look-seen")
            with gr.Row():
                layer = gr.Dropdown(
                    [(text("usual"), USUAL)], value=USUAL, label=text("layer"), min_width=140, elem_id="look-layer"
                )
                step = gr.Slider(0, STEPS - 1, value=STEPS // 2, step=1, label=text("step"), min_width=140)
                head = gr.Slider(EVERY, 15, value=EVERY, step=1, label=text("head"), min_width=140)
            following = Following.build(page, KIND, "look_run")
            sheet = gr.Image(label=text("look_sheet"), interactive=False, elem_id="look-sheet")
            notes = gr.HTML("")
    inputs = [picture, *asked.values(), layer, step, head]
    outputs, ask = [seen, sheet, layer, notes], _ask()
    following.connect(inputs, ask, outputs, _shown)

    def clicked(event: gr.SelectData) -> str:
        return f"{event.index[0]},{event.index[1]}"

    spotted = picture.select(clicked, None, asked["spot"], show_progress="hidden", api_visibility="private")
    following.start_on(spotted.then, inputs, ask, outputs, _shown, replaces=True)
    for event in (layer.input, step.release, head.release):
        following.start_on(event, inputs, ask, outputs, _shown, replaces=True)
    sample.input(lambda path: path, sample, picture, api_visibility="private")
    page.receivers["look"] = Receiver(KIND, [picture], lambda path: [path])


def _asked() -> dict[str, Any]:
    asked: dict[str, Any] = {}
    asked["what"] = gr.Radio(
        [(text("look_place"), "place"), (text("look_word"), "word"), (text("look_feature"), "feature"),
         (text("look_histogram"), "histogram")],
        value="place", label=text("look_what"), elem_id="look-what",
    )  # fmt: skip
    with gr.Row():
        asked["spot"] = gr.Textbox(label=text("spot"), max_lines=1, min_width=120, elem_id="look-spot")
        asked["prompt"] = gr.Textbox(label=text("look_prompt"), max_lines=1, min_width=160, elem_id="look-prompt")
        asked["word"] = gr.Textbox(label=text("word"), max_lines=1, min_width=100, elem_id="look-word")
    with gr.Row():
        asked["feature"] = gr.Dropdown(["q", "k", "v", "residual"], value="q", label=text("feature"), min_width=100)
        asked["style"] = gr.Dropdown(
            [(path.stem, str(path)) for path in paintings()], label=text("style"), min_width=160, elem_id="look-style"
        )
    return asked


def _ask() -> Callable[..., tuple[Task, Callable[[Any], Any]]]:
    courses: list[Any] = []  # made when they are first needed: they bring torch

    def ask(
        picture: str | None, what: str, spot: str, prompt: str, word: str, feature: str, style: str | None, layer: str,
        step: float, head: float,
    ) -> tuple[Task, Callable[[Any], Any]]:  # fmt: skip
        if not picture:
            raise PageError("no_picture")
        if what in ("place", "histogram") and not spot:
            raise PageError("no_place")
        if what == "histogram" and not style:
            raise PageError("no_other_style")
        chosen_head = None if head == EVERY else int(head)
        if what == "histogram":
            return _histogram(picture, str(style), spot, chosen_head), _whole

        def task(studio: Any, watch: Any) -> None:
            from ldm.workflows.look.questions import Courses, Question, answer

            if not courses:
                courses.append(Courses(STEPS))
            question = Question(
                spot=spot if what == "place" else "", word=word if what == "word" else "",
                feature=feature if what == "feature" else "", prompt=prompt if what == "word" else "",
                layer=None if layer == USUAL else layer, step=int(step), head=chosen_head,
            )  # fmt: skip
            question.check()
            found, course = courses[0].find(studio, Path(picture), LONGEST, question.prompt)
            watch.result(answer(studio, found, course, question))

        return task, _whole

    return ask


def _histogram(picture: str, style: str, spot: str, head: int | None) -> Task:
    def task(studio: Any, watch: Any) -> None:
        from ldm.workflows.look.questions import histograms
        from ldm.workflows.restyle.plan import StyleIDOptions

        options = StyleIDOptions(
            cnt=picture, sty=style, longest=LONGEST, ddim_inv_steps=STEPS, save_feat_steps=STEPS, precomputed="",
            progress=False,
        )  # fmt: skip
        watch.result(histograms(studio, options, spot, head))

    return task


def _whole(result: Any) -> Any:
    return result


def _shown(job: Job) -> list[Any]:
    if not job.results:
        return [gr.skip(), gr.skip(), gr.skip(), notes_html(job)]
    found = job.results[-1]
    if isinstance(found, Image.Image):  # a histogram
        return [gr.skip(), found, gr.skip(), notes_html(job)]
    layers = gr.Dropdown([(text("usual"), USUAL), *((name, name) for name in found.layers)])
    return [found.picture, found.sheet, layers, notes_html(job)]

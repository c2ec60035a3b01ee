"""The tab that learns something new from a few pictures, and tries it at once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ldm.shipped import ROOT
from ldm.util import UserError
from ldm.web.jobs import Job, Task
from ldm.web.page import personalise_masks
from ldm.web.page.context import Page, Receiver, language_of, text
from ldm.web.page.following import Following, notes_html
from ldm.web.page.personalise_masks import Kept, mask_of
from ldm.web.page.personalise_use import Use
from ldm.web.page.pictures import INPUTS
from ldm.web.page.texts import PageError, escaped, say

KIND = "personalise"
SAMPLES, SAMPLES_ARE_LIKE = ROOT / "examples" / "word", "house"  # windmills
MOST_STEPS = 6000
CROPS = ("middle", "subject", "whole")
METHODS = ("word", "lora", "pivotal", "dreambooth")
PARTED = " | "  # sentences about one picture


@dataclass(frozen=True)
class Fields:
    """What the tab asks for, as components."""

    pictures: Any
    crop: Any
    masks: Any
    captions: Any
    method: Any
    name: Any
    word: Any
    start: Any
    steps: Any

    @property
    def inputs(self) -> list[Any]:
        """All of them, in the order that ``_ask`` takes."""
        about = [self.method, self.name, self.word, self.start, self.steps]
        return [self.pictures, self.crop, self.masks, self.captions, *about]


def build(page: Page) -> None:
    """Put the tab where the page is being built."""
    with gr.Row(elem_classes="ldm-wide"):
        with gr.Column(scale=5, min_width=360):
            fields = _fields(page)
            following = Following.build(page, KIND, "learn", "stop", opens=False)
        with gr.Column(scale=6, min_width=360):
            loss = gr.LinePlot(x="step", y="loss", label=text("loss"), height=200, elem_id="personalise-loss")
            preview = gr.Image(
                label=text("learn_previews"), type="filepath", height=260, interactive=False,
                elem_id="personalise-preview",
            )  # fmt: skip
            notes = gr.HTML("", elem_id="personalise-notes")
            use = Use.build(page)
    outputs = [loss, preview, notes, use.runs, use.prompt, use.formats]
    following.connect([page.model, *fields.inputs], _ask(page), outputs, _shown)
    page.receivers["learn"] = Receiver(KIND, [fields.pictures], lambda path: [[path]])
    following.start_on(use.go_on.click, [use.runs, fields.steps], _go_on, outputs, _shown)


def _fields(page: Page) -> Fields:
    pictures = gr.File(
        file_count="multiple", file_types=["image"], label=text("learn_pictures"), height=150, elem_id="learn-pictures"
    )
    sample = gr.Button(text("learn_sample"), size="sm", elem_id="learn-sample")
    crop = gr.Radio([(text(f"crop_{name}"), name) for name in CROPS], value=CROPS[0], label=text("crop"))
    masks = personalise_masks.build(pictures, crop)
    captions = gr.Textbox(
        label=text("captions"), info=text("captions_hint"), lines=3, max_lines=8, elem_id="learn-captions"
    )
    method = gr.Radio(
        [(text(f"learn_{name}"), name) for name in METHODS], value="word", label=text("method"), elem_id="learn-method"
    )
    told = gr.HTML("", elem_id="learn-told")
    with gr.Row():
        name = gr.Textbox("mine", label=text("learn_name"), max_lines=1, min_width=110, elem_id="learn-name")
        word = gr.Textbox(label=text("learn_called"), info=text("learn_called_hint"), max_lines=1, min_width=110)
        start = gr.Textbox(
            label=text("learn_start"), info=text("learn_start_hint"), max_lines=1, min_width=110, elem_id="learn-start"
        )
    steps = gr.Slider(
        0, MOST_STEPS, value=0, step=10, label=text("steps"), info=text("learn_steps_hint"), elem_id="learn-steps"
    )
    sample.click(_samples, None, [pictures, captions, start], api_visibility="private")
    for event in (page.model.change, method.input, steps.release):
        event(_expected(page), [page.model, method, steps], told, api_visibility="private", show_progress="hidden")
    return Fields(pictures, crop, masks, captions, method, name, word, start, steps)


def _samples() -> tuple[list[str], str, str]:
    """The shipped pictures to learn from, the sentences beside them, and what is nearest to what they show."""
    files = sorted(SAMPLES.glob("*.png"))
    lines = [path.with_suffix(".txt").read_text(encoding="utf-8").splitlines() for path in files]
    return [str(path) for path in files], "\n".join(PARTED.join(one) for one in lines), SAMPLES_ARE_LIKE


def _expected(page: Page) -> Callable[..., str]:
    """The line that says what a method is, how many steps it takes and how long that is."""

    def expected(model: str | None, method: str, steps: float, request: gr.Request) -> str:
        from ldm.workflows.personalise import minutes_of, recipe_of

        language = language_of(request)
        about = escaped(say(f"learn_{method}_about", language))
        try:
            recipe = recipe_of(page.desk.model(model), method)
        except UserError as error:
            return f"<p class='ldm-line'>{about} {escaped(error)}</p>"
        count, minutes = int(steps) or recipe.steps(), minutes_of(recipe, int(steps))
        key = "learn_minutes" if minutes else "learn_count"
        words = say(key, language, steps=count, minutes=max(1, round(minutes)))
        return f"<p class='ldm-line'>{about} {escaped(words)}</p>"

    return expected


def _ask(page: Page) -> Callable[..., tuple[Task, Callable[[Any], Any]]]:
    def ask(
        model: str | None, pictures: Sequence[str] | None, crop: str, kept: Kept, captions: str, method: str, name: str,
        word: str, start: str, steps: float,
    ) -> tuple[Task, Callable[[Any], Any]]:  # fmt: skip
        if not pictures:
            raise PageError("learn_none")
        chosen, sentences = page.desk.model(model), (captions or "").splitlines()

        def task(studio: Any, watch: Any) -> Any:
            from ldm.pictures.images import load_image
            from ldm.workflows.personalise import Lesson, command_of, folder_name, write_pictures
            from ldm.workflows.training_process import train

            place = page.folder(KIND) / INPUTS
            place.mkdir(parents=True, exist_ok=True)
            lesson = Lesson(method, folder_name(name), word.strip(), start.strip(), int(steps))
            folder = Path(tempfile.mkdtemp(prefix=f"{lesson.name}-", dir=place)).resolve()
            arguments = command_of(lesson, chosen, folder)
            masks = [mask_of(kept[path], load_image(path)) if path in kept else None for path in pictures]
            write_pictures(pictures, folder, crop, sentences, lesson.called, masks)
            return train(arguments, lesson.name, watch)

        return task, str

    return ask


def _go_on(run: str | None, steps: float) -> tuple[Task, Callable[[Any], Any]]:
    if not run:
        raise PageError("learn_no_run")
    more = ["--max_steps", str(int(steps))] if steps else []

    def task(studio: Any, watch: Any) -> Any:
        from ldm.workflows.training_process import resume

        return resume(Path(run), watch, more)

    return task, str


def _shown(job: Job) -> list[Any]:
    """The course of the loss, the newest picture; at the end the run is the one to try."""
    if not job.results:
        return [gr.skip(), gr.skip(), notes_html(job), *[gr.skip()] * 3]
    from ldm.workflows.learned_files import prompt_of
    from ldm.workflows.training_process import previews_of

    run = Path(job.results[-1])
    pictures = previews_of(run)
    over = job.is_over and run.is_dir()
    return [
        losses(run), str(pictures[0]) if pictures else gr.skip(), notes_html(job),
        *([Use.menu(str(run)), prompt_of(run), Use.formats_of(str(run))] if over else [gr.skip()] * 3),
    ]  # fmt: skip


def losses(run: Path) -> Any:
    """Step and loss of a run, as a table that is drawn; as it was while the last line is being written."""
    import pandas as pd

    from ldm.run_metrics import LOSS, read_metric, tables_of

    try:
        steps, values = read_metric(tables_of(run), LOSS)
    except (OSError, TypeError, ValueError):
        return gr.skip()
    return pd.DataFrame({"step": steps, "loss": values})

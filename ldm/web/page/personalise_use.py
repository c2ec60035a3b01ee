"""What to do with a run: go on with it, make pictures with what it has learned, have that as a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ldm.util import UserError
from ldm.web.jobs import Job, Task
from ldm.web.page.context import Page, language_of, text
from ldm.web.page.following import Following, notes_html
from ldm.web.page.pictures import FILES
from ldm.web.page.texts import PageError, say

KIND, FOLDER = "learned", "personalise"
TRIED = 2  # pictures


@dataclass
class Use:
    """The menu of runs, and what the other half of the tab connects."""

    runs: Any
    go_on: Any
    prompt: Any
    formats: Any

    @classmethod
    def build(cls, page: Page) -> Use:
        """Put it where the page is being built."""
        with gr.Row(elem_classes="ldm-low"):
            runs = gr.Dropdown([], label=text("learn_run"), scale=3, min_width=200, elem_id="learn-run")
            go_on = gr.Button(text("learn_go_on"), scale=1, min_width=110, elem_id="learn-go-on")
        with gr.Row():
            prompt = gr.Textbox(label=text("learn_try"), max_lines=2, scale=3, min_width=200, elem_id="learned-prompt")
            seed = gr.Number(
                -1, precision=0, label=text("seed"), info=text("seed_hint"), scale=1, min_width=110,
                elem_id="learned-seed",
            )  # fmt: skip
        following = Following.build(page, KIND, "learn_try_run")
        made = gr.Gallery(
            label=text("results"), columns=2, object_fit="contain", height=280, interactive=False, format="png",
            elem_id="learned-results",
        )  # fmt: skip
        notes = gr.HTML("")
        following.connect([runs, prompt, seed], _ask(page), [made, notes], _shown)
        formats = _download(page, runs)
        runs.input(_prompt, runs, prompt, api_visibility="private", show_progress="hidden")
        page.load(lambda: cls.menu(None), None, runs, api_visibility="private")
        return cls(runs, go_on, prompt, formats)

    @staticmethod
    def menu(chosen: str | None) -> Any:
        """The runs that are there by now."""
        from ldm.workflows.learned_files import learned_runs

        found = [(run.name, str(run)) for run in learned_runs()]
        return gr.Dropdown(found, value=chosen) if chosen in [path for _, path in found] else gr.Dropdown(found)

    @staticmethod
    def formats_of(run: str | None) -> Any:
        """The menu of formats for what a run has left by now."""
        from ldm.workflows.learned_files import FORMATS, formats_of, readers_of

        if not run:
            return gr.Dropdown([], value=None)
        found = formats_of(Path(run))
        named = [(f"{FORMATS[name].suffix} · {readers_of(Path(run), name)}", name) for name in found]
        return gr.Dropdown(named, value=found[0] if found else None)


def _prompt(run: str | None) -> str:
    from ldm.workflows.learned_files import prompt_of

    return prompt_of(Path(run)) if run else ""


def _ask(page: Page) -> Callable[..., tuple[Task, Callable[[Any], Any]]]:
    def ask(run: str | None, prompt: str, seed: float | None) -> tuple[Task, Callable[[Any], Any]]:
        if not run:
            raise PageError("learn_no_run")
        outdir = str(page.folder(FOLDER))

        def task(studio: Any, watch: Any) -> None:
            from ldm.workflows.learned_files import options_of
            from ldm.workflows.txt2img import Txt2ImgOptions, txt2img

            options = Txt2ImgOptions(
                prompt=prompt, seed=-1 if seed is None else int(seed), n_samples=TRIED, outdir=outdir, skip_grid=True,
                progress=False, **options_of(Path(run)),
            )  # fmt: skip
            txt2img(options, studio, watch)

        return task, lambda made: (str(made.path), f"{made.prompt[:80]} · {made.seed}")

    return ask


def _shown(job: Job) -> list[Any]:
    return [[*job.results, *([] if job.is_over else job.pictures)], notes_html(job)]


def _download(page: Page, runs: Any) -> Any:
    """A menu of the formats that a run's files can be had in, and the file; gives the menu."""
    with gr.Row(elem_classes="ldm-low"):
        kind = gr.Dropdown([], label=text("learn_format"), scale=2, min_width=180, elem_id="learn-format")
        write = gr.Button(text("learn_write"), scale=1, min_width=110, elem_id="learn-write")
    file = gr.File(label=text("learn_file"), interactive=False, height=90, elem_id="learn-file")

    def written(run: str | None, name: str | None, request: gr.Request) -> str:
        from ldm.workflows.learned_files import write_for_others

        if not run or not name:
            raise gr.Error(say("learn_no_run", language_of(request)), print_exception=False)
        try:
            return str(write_for_others(Path(run), name, page.folder(FOLDER) / FILES).resolve())
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from error

    runs.change(Use.formats_of, runs, kind, api_visibility="private", show_progress="hidden")
    write.click(written, [runs, kind], file, api_visibility="private")
    return kind

"""The tab that makes films from first frames; it is there where a model of films is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from ldm.web.jobs import Job, Task
from ldm.web.page.context import Page, Receiver, text
from ldm.web.page.following import Following, notes_html
from ldm.web.page.pictures import first_frames, photographs
from ldm.web.page.texts import PageError
from ldm.workflows.film_course import MANNERS

KIND = "film"
FORMATS = ("webp", "mp4", "sheet")
USUAL_FPS, USUAL_MOTION = 7, 127
HEADINGS = {arrow: 45 * number for number, arrow in enumerate("→↘↓↙←↖↑↗")}
CHANCE = "chance"


def build(page: Page) -> None:
    """Put the tab where the page is being built."""
    with gr.Row(elem_classes="ldm-wide"):
        with gr.Column(scale=5, min_width=360):
            model = gr.Dropdown([], label=text("film_model"), elem_id="film-model")
            sample = gr.Dropdown(
                [(path.stem, str(path)) for path in [*first_frames(), *photographs()]], value=None,
                label=text("film_sample"), elem_id="film-sample",
            )  # fmt: skip
            first = gr.Image(
                type="filepath", sources=["upload", "clipboard"], label=text("film_first"), height=300, format="png",
                elem_id="film-first",
            )  # fmt: skip
            inputs = [model, first, *_numbers(), *_courses()]
            following = Following.build(page, KIND)
            following.model = model
        with gr.Column(scale=6, min_width=360):
            shown = gr.Image(
                label=text("film_shown"), type="filepath", interactive=False, height=360, elem_id="film-shown"
            )
            frames = gr.Gallery(
                label=text("film_coming"), columns=4, object_fit="contain", height=300, interactive=False, format="png",
                elem_id="film-frames",
            )  # fmt: skip
            notes = gr.HTML("")
    following.connect(inputs, _ask(page), [shown, frames, notes], _shown)
    sample.input(lambda path: path, sample, first, api_visibility="private")
    page.load(_models(page), None, model, api_visibility="private")
    page.for_films.append(page.tab)
    page.receivers["film"] = Receiver(KIND, [first], lambda path: [path])


def _numbers() -> list[Any]:
    with gr.Row():
        motion = gr.Slider(0, 255, value=USUAL_MOTION, step=1, label=text("film_motion"), min_width=140,
                           elem_id="film-motion")  # fmt: skip
        count = gr.Slider(0, 48, value=0, step=1, label=text("film_frames"), info=text("size_hint"), min_width=140,
                          elem_id="film-count")  # fmt: skip
        fps = gr.Slider(1, 30, value=USUAL_FPS, step=1, label=text("film_fps"), min_width=140)
    with gr.Row():
        steps = gr.Slider(0, 100, value=0, step=1, label=text("steps"), info=text("size_hint"), min_width=140,
                          elem_id="film-steps")  # fmt: skip
        seed = gr.Number(23, precision=0, label=text("seed"), info=text("seed_hint"), min_width=120)
    return [motion, count, fps, steps, seed]


def _courses() -> list[Any]:
    with gr.Row():
        heading = gr.Dropdown([(text("by_chance"), CHANCE), *((arrow, arrow) for arrow in HEADINGS)], value=CHANCE,
                              label=text("film_heading"), min_width=140, elem_id="film-heading")  # fmt: skip
        manner = gr.Dropdown([(text("by_chance"), CHANCE), *((text(f"manner_{name}"), name) for name in MANNERS)],
                             value=CHANCE, label=text("film_manner"), min_width=140)  # fmt: skip
    return [heading, manner]


def _models(page: Page) -> Callable[[], Any]:
    def models() -> Any:
        found = [one.name for one in page.desk.models() if one.films]
        return gr.Dropdown(found, value=found[0] if found else None)

    return models


def _ask(page: Page) -> Callable[..., tuple[Task, Callable[[Any], Any]]]:
    def ask(
        model: str | None, first: str | None, motion: float, count: float, fps: float, steps: float,
        seed: float | None, heading: str, manner: str,
    ) -> tuple[Task, Callable[[Any], Any]]:  # fmt: skip
        if not model:
            raise PageError("no_film_model")
        if not first:
            raise PageError("no_picture")
        numbers = [int(value) for value in (motion, count, fps, steps, -1 if seed is None else seed)]
        way: dict[str, Any] = {"heading": HEADINGS.get(heading), "manner": None if manner == CHANCE else manner}

        def task(studio: Any, watch: Any) -> None:
            from ldm.pictures.images import load_image
            from ldm.web.page.pictures import file_of
            from ldm.workflows.film_options import VideoOptions
            from ldm.workflows.video import video

            motion, count, fps, steps, seed = numbers
            asked = [str(one) for one in (*numbers, *way.values()) if one is not None]
            outdir = page.folder(KIND)
            options = VideoOptions(
                str(file_of(load_image(first), outdir, Path(first).stem)), motion_bucket_id=motion, fps_id=fps - 1,
                num_frames=count or None, num_steps=steps or None, seed=seed, formats=FORMATS, progress=False,
                output_folder=str(outdir / "-".join(asked)), **way,
            )  # fmt: skip
            video(options, studio, watch)

        return task, lambda result: [str(file) for file in result.files]

    return ask


def _shown(job: Job) -> list[Any]:
    """The film and the sheet of its frames, or what its frames look like by now."""
    if not job.results:
        return [gr.skip(), job.pictures or gr.skip(), notes_html(job)]
    film, _, sheet = job.results[-1]
    return [film, [sheet], notes_html(job)]

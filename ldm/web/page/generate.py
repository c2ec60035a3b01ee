"""The tab that makes pictures of prompts, and of pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ldm.web.jobs import Job, Task
from ldm.web.page.context import USUAL, Page, Receiver, language_of, text
from ldm.web.page.following import Following, notes_html
from ldm.web.page.pictures import editor_value, picture_and_masks
from ldm.web.page.settings import FIELDS, settings_of, values_of
from ldm.web.page.texts import LANGUAGES, TABLE, say

KIND = "generate"
LORAS = 2
LARGEST = 2048
MOST = 16
WIDE = 190  # pixels of a field with a label and a number beside each other: one a row on a phone
LOUDEST, MOST_SETTLED = 2.0, 64  # as ldm.workflows.plan has them, which is not loaded with the page
BRUSH = ("rgba(230, 25, 75, 0.5)",)


@dataclass(frozen=True)
class Fields:
    """What the tab asks for, as components."""

    settings: dict[str, Any]
    count: Any
    language: Any
    words: Any
    loras: list[tuple[Any, Any]]
    editor: Any
    strength: Any

    @property
    def inputs(self) -> list[Any]:
        """All of them, in the order that ``options_of`` takes."""
        loras = [part for pair in self.loras for part in pair]
        return [*self.settings.values(), self.count, self.language, self.words, self.editor, self.strength, *loras]


def build(page: Page) -> None:
    """Put the tab where the page is being built."""
    with gr.Row(elem_classes="ldm-wide"):
        with gr.Column(scale=5, min_width=360):
            fields = _fields()
            following = Following.build(page, KIND)
            _settings_from_picture(page, fields)
        with gr.Column(scale=6, min_width=360):
            results = gr.Gallery(
                label=text("results"), columns=2, object_fit="contain", height=560, elem_id="generate-results",
                interactive=False, format="png",
            )  # fmt: skip
            notes = gr.HTML("", elem_id="generate-notes")
    following.connect(fields.inputs, _ask(page), [results, notes], _shown)
    following.start_on(fields.settings["prompt"].submit, fields.inputs, _ask(page), [results, notes], _shown)
    page.load(_choices, None, [fields.settings["sampler"], fields.words, *(file for file, _ in fields.loras)])
    page.receivers["settings"] = Receiver(KIND, list(fields.settings.values()), values_of)
    page.receivers["picture"] = Receiver(KIND, [fields.editor], lambda path: [editor_value(path)])


def _fields() -> Fields:
    settings: dict[str, Any] = {}
    settings["prompt"] = gr.Textbox(
        label=text("prompt"), placeholder=text("prompt_hint"), lines=3, elem_id="generate-prompt", autofocus=True
    )
    settings["negative_prompt"] = gr.Textbox(label=text("negative"), placeholder=text("negative_hint"), lines=1)
    with gr.Row():
        count = gr.Slider(1, MOST, value=1, step=1, label=text("count"), min_width=140, elem_id="generate-count")
        seed = gr.Number(
            -1, precision=0, label=text("seed"), info=text("seed_hint"), min_width=120, elem_id="generate-seed"
        )
    with gr.Accordion(text("more"), open=False, elem_id="generate-more"):
        with gr.Row():
            settings["sampler"] = gr.Dropdown(
                [(text("usual"), USUAL)], value=USUAL, label=text("sampler"), min_width=WIDE, elem_id="generate-sampler"
            )
            settings["steps"] = gr.Slider(
                0, 150, value=0, step=1, label=text("steps"), info=text("size_hint"), min_width=WIDE,
                elem_id="generate-steps",
            )  # fmt: skip
            settings["guidance_scale"] = gr.Slider(
                0, 20, value=0, step=0.5, label=text("scale"), info=text("size_hint"), min_width=WIDE
            )
            settings["noise_scale"] = gr.Slider(
                0, LOUDEST, value=0, step=0.05, label=text("noise_scale"), info=text("size_hint"),
                min_width=WIDE, elem_id="generate-noise-scale",
            )  # fmt: skip
            settings["settle"] = gr.Slider(
                -1, MOST_SETTLED, value=-1, step=1, label=text("settle"), info=text("settle_hint"),
                min_width=WIDE, elem_id="generate-settle",
            )  # fmt: skip
        with gr.Row():
            for side in ("width", "height"):
                settings[side] = gr.Slider(
                    0, LARGEST, value=0, step=8, label=text(side), info=text("size_hint"), min_width=WIDE
                )
        language = gr.Radio(
            [(text("auto"), "auto"), *((name, name) for name in LANGUAGES)], value="auto", label=text("language")
        )
    settings["seed"] = seed
    with gr.Accordion(text("additions"), open=False):
        words = gr.Dropdown([], multiselect=True, label=text("words"))
        loras = [_lora(number) for number in range(1, LORAS + 1)]
    with gr.Accordion(text("from_picture"), open=False, elem_id="generate-from"):
        editor = gr.ImageEditor(
            type="pil", image_mode="RGBA", sources=("upload", "clipboard"), transforms=(), layers=False, format="png",
            label=text("picture"), height=380, elem_id="generate-editor",
            brush=gr.Brush(default_size=24, colors=list(BRUSH), default_color=BRUSH[0], color_mode="fixed"),
        )  # fmt: skip
        strength = gr.Slider(0, 1, value=0.75, step=0.05, label=text("strength"))
    return Fields({name: settings[name] for name in FIELDS}, count, language, words, loras, editor, strength)


def _lora(number: int) -> tuple[Any, Any]:
    with gr.Row():
        label, scale_label = (TABLE[key][0].format(number=number) for key in ("lora", "lora_scale"))
        file = gr.Dropdown([(text("none"), USUAL)], value=USUAL, label=label, scale=2, min_width=160)
        return file, gr.Slider(-2, 2, value=1, step=0.05, label=scale_label, scale=2, min_width=160)


def _choices() -> list[Any]:
    """What lies at hand when the page is opened."""
    from ldm.workflows.catalogue import SAMPLER_NAMES, loras_at_hand, words_at_hand

    loras = [(text("none"), USUAL), *((_short(path), str(path)) for path in loras_at_hand())]
    return [
        gr.Dropdown([(text("usual"), USUAL), *((name, name) for name in SAMPLER_NAMES)]),
        gr.Dropdown([(_short(path), str(path)) for path in words_at_hand()]),
        *(gr.Dropdown(loras) for _ in range(LORAS)),
    ]


def _short(path: Path) -> str:
    """A file as a menu names it: that of a run by the run."""
    return path.parent.parent.name if path.parent.name == "checkpoints" else path.stem


def _ask(page: Page) -> Callable[..., tuple[Task, Callable[[Any], Any]]]:
    def ask(*values: Any) -> tuple[Task, Callable[[Any], Any]]:
        return task_of(page.folder(KIND), *values), kept

    return ask


def task_of(outdir: Path, *values: Any) -> Task:
    """The workflow that the fields ask for.

    Raises:
        UserError: the editor's picture or its mask does not fit.
    """
    asked = dict(zip(FIELDS, values, strict=False))
    count, language, words, editor, strength, *loras = values[len(FIELDS) :]
    picture, masks = picture_and_masks(editor)
    mask = masks[0] if masks else None
    scaled = zip(loras[::2], loras[1::2], strict=True)
    given = {
        "prompt": asked["prompt"] or "",
        "negative_prompt": asked["negative_prompt"] or "",
        "seed": -1 if asked["seed"] is None else int(asked["seed"]),
        "n_samples": int(count),
        "lang": language,
        "embedding_path": list(words) or None,
        "lora": [f"{file}={scale:g}" for file, scale in scaled if file != USUAL] or None,
        "outdir": str(outdir),
        "skip_grid": True,
        "progress": False,
        "sampler": None if asked["sampler"] == USUAL else asked["sampler"],
        "settle": None if asked["settle"] == -1 else int(asked["settle"]),
        **{name: asked[name] or None for name in ("steps", "guidance_scale", "noise_scale", "width", "height")},
    }

    def task(studio: Any, watch: Any) -> None:
        from ldm.workflows.img2img import Img2ImgOptions, img2img
        from ldm.workflows.inpaint import InpaintOptions, inpaint
        from ldm.workflows.txt2img import Txt2ImgOptions, txt2img

        if picture is None:
            txt2img(Txt2ImgOptions(**given), studio, watch)
        elif mask is None:
            img2img(Img2ImgOptions(**given, init_img=picture, strength=strength), studio, watch)
        else:
            inpaint(InpaintOptions(**given, init_img=picture, mask=mask, strength=strength), studio, watch)

    return task


def kept(made: Any) -> tuple[str, str]:
    """What is kept of a finished picture: its file, and what is written below it."""
    return str(made.path), f"{made.prompt[:80]} · {made.seed}"


def pictures_of(job: Job) -> list[Any]:
    """The finished pictures, and how the next ones look by now."""
    return [*job.results, *([] if job.is_over else job.pictures)]


def _shown(job: Job) -> list[Any]:
    return [pictures_of(job), notes_html(job)]


def _settings_from_picture(page: Page, fields: Fields) -> None:
    """A picture that is dropped anywhere on the page: its settings go into the fields."""
    with gr.Column(elem_id="ldm-dropped"):
        dropped = gr.UploadButton(text("settings_picture"), file_types=["image"], size="sm")

    def read(path: str | None, request: gr.Request) -> list[Any]:
        settings = settings_of(path)
        if settings is None:
            raise gr.Error(say("settings_none", language_of(request)), print_exception=False)
        gr.Info(say("settings_read", language_of(request)))
        return [gr.Tabs(selected=KIND), *values_of(settings)]

    dropped.upload(
        read, [dropped], [page.tabs, *fields.settings.values()], concurrency_limit=None, api_visibility="private"
    )

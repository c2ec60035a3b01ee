"""A request as a tab shows it: a button, a line that says how far it is, what has come of it, and a way to end it.

A browser remembers the id of its request. Opened again, the page finds the request at the desk and follows it further.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ldm.util import UserError
from ldm.web.jobs import CANCELLED, FAILED, OPENING, RUNNING, WAITING, Desk, Job, Task
from ldm.web.page.context import Page, language_of, text
from ldm.web.page.texts import escaped, say, sentence_of

LOOK = 0.25  # seconds between two looks at a job
Show = Callable[[Job], list[Any]]
Ask = Callable[..., tuple[Task, Callable[[Any], Any]]]


@dataclass
class Following:
    """The components of a tab's requests.

    Attributes:
        model: the menu of the model that they are for.
        opens: whether they need it in memory, see ``ldm.web.jobs.Job``.
    """

    page: Page
    kind: str
    run: gr.Button
    cancel: gr.Button
    line: gr.HTML
    kept: gr.BrowserState
    model: Any
    opens: bool = True

    @classmethod
    def build(
        cls, page: Page, kind: str, label: str = "run", cancel_label: str = "cancel", opens: bool = True
    ) -> Following:
        """Put the buttons and the line where the page is being built."""
        with gr.Row():
            run = gr.Button(text(label), variant="primary", elem_id=f"{kind}-run", scale=3)
            cancel = gr.Button(text(cancel_label), elem_id=f"{kind}-cancel", scale=1, min_width=90)
        line = gr.HTML(status_html("", ""), elem_id=f"{kind}-status", elem_classes="ldm-status")
        kept = gr.BrowserState("", storage_key=f"ldm-{kind}")
        return cls(page, kind, run, cancel, line, kept, page.model, opens)

    def connect(self, inputs: Sequence[Any], ask: Ask, outputs: Sequence[Any], show: Show) -> None:
        """Connect the buttons.

        Args:
            inputs: what ``ask`` gets the values of; it gives the task, and what is kept of each result.
            show: what ``outputs`` become, of a job.
        """
        self.start_on(self.run.click, inputs, ask, outputs, show)
        self.cancel.click(self._cancel, [self.kept], None, concurrency_limit=None, api_visibility="private")
        self.page.load(
            self._follow(show), [self.kept], [self.line, *outputs], concurrency_limit=None, show_progress="hidden",
            api_visibility="private",
        )  # fmt: skip

    def start_on(
        self, event: Any, inputs: Sequence[Any], ask: Ask, outputs: Sequence[Any], show: Show, replaces: bool = False
    ) -> None:
        """Have an event begin a request, too; with ``replaces`` in the place of the one before, which is ended."""
        begun = event(
            self._begin(ask, replaces), [self.model, self.kept, *inputs], [self.kept, self.line],
            concurrency_limit=None, show_progress="hidden", api_visibility="private",
        )  # fmt: skip
        begun.then(
            self._follow(show), [self.kept], [self.line, *outputs], concurrency_limit=None, show_progress="hidden",
            api_visibility="private",
        )  # fmt: skip

    def _begin(self, ask: Ask, replaces: bool) -> Callable[..., tuple[str, str]]:
        desk = self.page.desk

        def begin(request: gr.Request, model: str | None, before: str, *values: Any) -> tuple[str, str]:
            if replaces:
                self._cancel(before)
            try:
                task, keep = ask(*values)
                job = desk.submit(task, model or None, self.kind, keep, self.opens)
            except UserError as error:
                return "", status_html("error", sentence_of(error, language_of(request)))
            return job.id, status_html("", "…")

        return begin

    def _follow(self, show: Show) -> Callable[..., AsyncIterator[Any]]:
        desk = self.page.desk

        async def follow(job_id: str, request: gr.Request) -> AsyncIterator[Any]:
            job, language, before = desk.find(job_id), language_of(request), None
            if job is None:
                yield gr.skip()  # a generator that yields nothing would empty the line that has just said why
            while job is not None:
                over = job.is_over
                job.want_preview()
                now = (job.state, job.step, len(job.results), len(job.notes), desk.place(job), over)
                if now != before:
                    before = now
                    yield [status(desk, job, language), *show(job)]
                if over:
                    return
                await asyncio.sleep(LOOK)

        return follow

    def _cancel(self, job_id: str) -> None:
        job = self.page.desk.find(job_id)
        if job is not None:
            self.page.desk.cancel(job)


def status(desk: Desk, job: Job, language: str) -> str:
    """How far a job is, as HTML."""
    if job.state == FAILED:
        return status_html("error", job.error)
    if job.state == CANCELLED:
        return status_html("", say("cancelled", language))
    if job.state == WAITING:
        return status_html("", say("waiting", language, place=desk.place(job)))
    if job.state == OPENING:
        return status_html("", say("opening", language, model=job.model), 0.0)
    if job.state == RUNNING:
        if not job.steps:
            return status_html("", say("working", language), 0.0)
        words = say(job.walk, language, step=job.step, steps=job.steps)
        if job.step < job.steps:
            words += " · " + say("left", language, seconds=max(1, round(job.remaining)))
        return status_html("", words, job.step / job.steps)
    return status_html("done", say("done", language, seconds=f"{job.seconds:.1f}"))


def status_html(kind: str, words: str, share: float | None = None) -> str:
    """A line that screen readers hear: an error at once, everything else when there is time."""
    role = 'role="alert"' if kind == "error" else 'role="status" aria-live="polite"'
    bar = "" if share is None else f'<progress max="1" value="{share:.3f}" aria-label="{escaped(words)}"></progress>'
    return f'<div class="ldm-line {kind}" {role}>{escaped(words)}</div>{bar}'


def notes_html(job: Job) -> str:
    """What the workflow has said about a request."""
    lines = [f"<li>{escaped(note)}</li>" for note in job.notes if not note.startswith("loading ")]
    return f"<ul class='ldm-notes'>{''.join(lines)}</ul>" if lines else ""

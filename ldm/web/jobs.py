"""One desk for all who ask: requests wait in a line, one worker does them in order, one model is in memory.

Whoever has asked holds a Job and reads from it what has become of the request; the job goes on when nobody looks.
"""

from __future__ import annotations

import gc
import logging
import queue
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from PIL import Image

from ldm.util import UserError, printable

if TYPE_CHECKING:  # they bring torch, which a page that starts need not wait for
    from ldm.workflows.catalogue import Listed
    from ldm.workflows.studio import Studio
    from ldm.workflows.watch import Step, Watch

log = logging.getLogger(__name__)

WAITING, OPENING, RUNNING, DONE, FAILED, CANCELLED = "waiting", "opening", "running", "done", "failed", "cancelled"
MOST_WAITING = 200
MOST_REMEMBERED = 50  # finished jobs
Task = Callable[["Studio", "Watch[Any]"], Any]


@dataclass(eq=False)
class Job:
    """A request at the desk; its worker writes it, everybody else reads.

    Attributes:
        task: what is done: a workflow with everything but the Studio and the Watch filled in.
        model: the name of the model that it is for; empty: the usual one, found when its turn comes.
        keep: what of a result is kept; a picture that is on the disk need not be in memory as well.
        opens: whether the task needs the model; for one that does without (it gets None) memory is made free.
        results: what the workflow has handed on so far, as ``keep`` has it.
        outcome: what it has returned.
        notes: what it has logged for people.
        error: one sentence, if it failed.
        future: is done when the job is.
    """

    task: Task
    model: str
    kind: str = ""
    keep: Callable[[Any], Any] = lambda result: result
    opens: bool = True
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    state: str = WAITING
    walk: str = ""
    step: int = 0
    steps: int = 0
    pictures: list[Image.Image] = field(default_factory=list)  # the last previews
    results: list[Any] = field(default_factory=list)
    outcome: Any = None
    notes: list[str] = field(default_factory=list)
    error: str = ""
    began: float = 0.0
    seconds: float = 0.0
    future: Future[Job] = field(default_factory=Future)
    _wanted: threading.Event = field(default_factory=threading.Event)
    _previews: threading.Event = field(default_factory=threading.Event)

    @property
    def is_over(self) -> bool:
        return self.future.done()

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody has asked to end it; it may still be at its last step."""
        return self._wanted.is_set()

    @property
    def remaining(self) -> float:
        """Seconds that this walk will probably take on; 0 as long as nothing is known."""
        if self.is_over or not self.step:
            return 0.0
        return (time.perf_counter() - self.began) * (self.steps - self.step) / self.step

    def cancel(self) -> None:
        """Have it end after its step; what is finished stays. One that still waits is ended by ``Desk.cancel``."""
        self._wanted.set()

    def want_preview(self) -> None:
        """The next step is to leave a preview; one is made for those who look, not at every step."""
        self._previews.set()

    def watch(self) -> Watch[Any]:
        """What the workflow reports to."""
        from ldm.workflows.watch import Watch

        return Watch(self._on_step, lambda result: self.results.append(self.keep(result)), self._wanted.is_set)

    def _on_step(self, step: Step) -> None:
        self.walk, self.step, self.steps = step.task, step.number, step.total
        if step.task == "sampling" and self._previews.is_set():
            self._previews.clear()
            self.pictures = step.preview()


class Desk:
    """The line of jobs, and the worker that does them."""

    def __init__(self, model: str | None = None, *, device: str | None = None, precision: str = "autocast") -> None:
        """A desk without a worker yet; see ``start``.

        Args:
            model: of requests that name none: a name of ``models_at_hand``, or a weight file; None: the small one.
            device, precision: see ``ldm.workflows.models.open_model``.

        Raises:
            UserError: there is no such model.
        """
        self.default = "" if model is None else self.model(model).name
        self._device, self._precision = device, precision
        self._line: queue.Queue[Job | None] = queue.Queue()
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._studio: Studio | None = None
        self._opened = ""
        self._guard = threading.Lock()
        self._worker = threading.Thread(target=self._work, name="desk", daemon=True)
        self.current: Job | None = None

    @staticmethod
    def models() -> list[Listed]:
        """What can be asked for."""
        from ldm.workflows.catalogue import models_at_hand

        return models_at_hand()

    def model(self, name: str | None = None) -> Listed:
        """The model of that name, the usual one without a name.

        Raises:
            UserError: there is none.
        """
        from ldm.workflows.catalogue import model_named

        return model_named(name or self.default or None, self.models())

    @property
    def opened(self) -> str:
        """The name of the model in memory; empty before there is one."""
        return self._opened

    def start(self) -> None:
        """Begin to work; the usual model is opened at once, so that the first request does not wait for it."""
        self._append(Job(lambda studio, watch: None, self.default, "open"))
        self._worker.start()

    def open(self, model: str | None = None) -> Job:
        """Have a model in memory, as a job.

        Raises:
            UserError: as ``submit``.
        """
        return self.submit(lambda studio, watch: None, model, "open")

    def stop(self) -> None:
        """End after the job that runs, which is cancelled."""
        for job in [*self.waiting(), *filter(None, [self.current])]:
            self.cancel(job)
        self._line.put(None)
        self._worker.join()

    def submit(
        self, task: Task, model: str | None = None, kind: str = "", keep: Callable[[Any], Any] = lambda result: result,
        opens: bool = True,
    ) -> Job:  # fmt: skip
        """Put a request at the end of the line; see ``Job``.

        Raises:
            UserError: there is no such model, or too many wait already.
        """
        return self._append(Job(task, self.model(model).name, kind, keep, opens))

    def _append(self, job: Job) -> Job:
        with self._guard:
            if len(self.waiting()) >= MOST_WAITING:
                raise UserError(f"{MOST_WAITING} requests are waiting already; ask again later")
            self._jobs[job.id] = job
            for old in [one for one in self._jobs.values() if one.is_over][:-MOST_REMEMBERED]:
                del self._jobs[old.id]
            self._line.put(job)
        return job

    def find(self, job_id: str | None) -> Job | None:
        """The job of that id, if it is remembered."""
        return self._jobs.get(job_id or "")

    def waiting(self) -> list[Job]:
        """Those that have not begun, in order."""
        return [job for job in list(self._jobs.values()) if job.state == WAITING]

    def place(self, job: Job) -> int:
        """How many come before a waiting job, the running one included."""
        with self._guard:
            line = self.waiting()
            return line.index(job) + (self.current is not None) if job in line else 0

    def cancel(self, job: Job) -> None:
        """End a job: at once if it waits, after its step if it runs. What is finished stays."""
        with self._guard:
            job.cancel()
            if job.state == WAITING:
                job.state = CANCELLED
                job.future.set_result(job)

    def forget(self, job: Job) -> None:
        """Let go of a job whose results have been taken."""
        self._jobs.pop(job.id, None)

    def _work(self) -> None:
        while (job := self._line.get()) is not None:
            with self._guard:
                if job.state != WAITING:
                    continue
                self.current, job.state = job, OPENING
            try:
                self._do(job)
            finally:
                self.current = None
                job.future.set_result(job)

    def _do(self, job: Job) -> None:
        job.began = time.perf_counter()
        with _notes(job):
            try:
                studio = self._open(job) if job.opens else self._close()
                job.state = RUNNING
                job.outcome = job.task(studio, job.watch())
                state = CANCELLED if job.is_cancelled else DONE
            except (UserError, OSError) as error:
                job.error, state = printable(error), FAILED
                if job.kind == "open":  # nobody waits for its answer; whoever asks for something is told, too
                    log.warning("%s", job.error)
            except Exception as error:  # whatever it is, the next one in the line gets its turn
                log.exception("a request failed")
                job.error, state = f"this went wrong inside: {type(error).__name__}: {printable(error)}", FAILED
        job.seconds = time.perf_counter() - job.began
        job.state = state

    def _open(self, job: Job) -> Studio:
        """The Studio of a job's model; the one before it goes first, because memory holds one."""
        from ldm.workflows.studio import open_studio

        if self._studio is None or self._opened != job.model:
            self._close()
            found = self.model(job.model)
            self._studio = open_studio(found.ckpt, device=self._device, precision=self._precision)
            self._opened = found.name
        return self._studio

    def _close(self) -> Any:
        """Let go of the model in memory."""
        self._studio, self._opened = None, ""
        gc.collect()


class _Notes(logging.Handler):
    """Keeps what a thread logs for people."""

    def __init__(self, job: Job) -> None:
        super().__init__(logging.INFO)
        self.job, self.thread = job, threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self.thread and record.exc_info is None:
            self.job.notes.append(record.getMessage())


class _notes:  # noqa: N801 a with block
    """Within the block, what this thread logs is written down in a job."""

    def __init__(self, job: Job) -> None:
        self.handler, self.logger = _Notes(job), logging.getLogger("ldm")

    def __enter__(self) -> None:
        if self.logger.getEffectiveLevel() > logging.INFO:
            self.logger.setLevel(logging.INFO)
        self.logger.addHandler(self.handler)

    def __exit__(self, *error: object) -> None:
        self.logger.removeHandler(self.handler)

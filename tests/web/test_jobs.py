"""The desk: requests in order, cancelled ones, wrong ones, and models that change between them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from ldm.models.diffusion.loop import Level, Snapshot
from ldm.util import UserError
from ldm.web import jobs
from ldm.web.jobs import CANCELLED, DONE, FAILED, Desk, Job
from ldm.workflows.catalogue import Listed
from tests.web.serving import until


class Opened:
    """What stands for models: which were opened, and how many were alive at once."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, ckpt: Path, **how: Any) -> Any:
        if ckpt.name == "broken":
            raise UserError("the file is broken")
        self.names.append(ckpt.name)
        return SimpleNamespace(name=ckpt.name, model=None)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    opened = Opened()
    listed = [Listed(name, Path(name), "") for name in ("small", "large", "broken")]
    monkeypatch.setattr("ldm.workflows.studio.open_studio", opened)
    monkeypatch.setattr("ldm.workflows.catalogue.models_at_hand", lambda: listed)
    return opened


@pytest.fixture
def desk(opened: Opened) -> Iterator[Desk]:
    desk = Desk()
    desk.start()
    yield desk
    desk.stop()


def over(job: Job) -> Job:
    return job.future.result(timeout=30)


def test_requests_are_done_in_order_and_each_with_its_model(desk: Desk, opened: Opened) -> None:
    seen: list[str] = []
    asked = [desk.submit(lambda s, w: seen.append(s.name), name) for name in (None, "large", "large", None)]
    assert [over(job).state for job in asked] == [DONE] * 4
    assert seen == ["small", "large", "large", "small"]
    assert opened.names == ["small", "large", "small"] and desk.opened == "small"


def test_a_request_that_needs_no_model_has_the_memory_for_itself(desk: Desk, opened: Opened) -> None:
    over(desk.submit(lambda s, w: None))
    alone = over(desk.submit(lambda s, w: (s, desk.opened), "large", opens=False))
    assert alone.outcome == (None, "") and over(desk.submit(lambda s, w: s.name)).outcome == "small"
    assert opened.names == ["small", "small"]


def test_whoever_waits_keeps_his_model_when_the_usual_one_is_changed(desk: Desk) -> None:
    hold, seen = threading.Event(), list[str]()
    first = desk.submit(lambda s, w: hold.wait(30) and None)
    second = desk.submit(lambda s, w: seen.append(s.name))
    desk.default = "large"
    third = desk.submit(lambda s, w: seen.append(s.name))
    hold.set()
    assert [over(job).state for job in (first, second, third)] == [DONE] * 3 and seen == ["small", "large"]


def test_a_failure_is_a_sentence_and_the_next_one_gets_its_turn(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    def wrong(studio: Any, watch: Any) -> None:
        raise UserError("the size 63 does not fit")

    def broken(studio: Any, watch: Any) -> None:
        raise KeyError("x")

    found = [over(desk.submit(task)) for task in (wrong, broken, lambda s, w: 3)]
    assert [job.state for job in found] == [FAILED, FAILED, DONE]
    assert found[0].error == "the size 63 does not fit" and "KeyError" in found[1].error and found[2].outcome == 3
    assert "a request failed" in caplog.text


def test_a_model_that_cannot_be_opened_fails_its_own_request_alone(desk: Desk) -> None:
    first, second = over(desk.submit(lambda s, w: 1, "broken")), over(desk.submit(lambda s, w: s.name))
    assert (first.state, first.error) == (FAILED, "the file is broken") and second.outcome == "small"


def test_cancelling_ends_a_waiting_request_at_once_and_a_running_one_after_its_step(desk: Desk) -> None:
    began, seen = threading.Event(), list[str]()

    def long(studio: Any, watch: Any) -> None:
        watch.result("a picture")
        began.set()
        until(watch.cancelled, "it was not told")

    running, waiting = desk.submit(long), desk.submit(lambda s, w: seen.append("no"))
    assert began.wait(30) and desk.place(waiting) == 1 and desk.waiting() == [waiting]
    desk.cancel(waiting)
    assert waiting.future.done() and waiting.state == CANCELLED and not desk.waiting()
    desk.cancel(running)
    assert over(running).state == CANCELLED and running.results == ["a picture"]
    over(desk.submit(lambda s, w: None))
    assert not seen


def test_notes_are_those_of_the_request_alone(desk: Desk) -> None:
    began, hold = threading.Event(), threading.Event()

    def speaks(studio: Any, watch: Any) -> None:
        logging.getLogger("ldm.workflows.languages").info("'별' is read as 'a star'")
        began.set()
        hold.wait(30)

    job = desk.submit(speaks)
    assert began.wait(30)
    logging.getLogger("ldm.other").warning("of another thread")
    hold.set()
    silent = over(desk.submit(lambda s, w: None))
    assert over(job).notes == ["'별' is read as 'a star'"] and silent.notes == []


def test_previews_are_made_for_those_who_look_alone(desk: Desk) -> None:
    decoded: list[int] = []

    def decode(z: torch.Tensor) -> torch.Tensor:
        decoded.append(1)
        return torch.zeros(1, 3, 8, 8)

    model = SimpleNamespace(decode_first_stage=decode)
    ready = threading.Event()

    def walk(studio: Any, watch: Any) -> None:
        assert ready.wait(30)
        after = watch.steps(model, "sampling")
        for index in range(4):
            if index == 2:
                job.want_preview()
            zeros = torch.zeros(1, 4, 2, 2)
            after(Snapshot(index, 4, Level(1.0, 1.0, 0.0, index), zeros, zeros))

    job = desk.submit(walk)
    ready.set()
    assert over(job).error == "" and (job.step, job.steps) == (4, 4)
    assert len(decoded) == 1 and isinstance(job.pictures[0], Image.Image)


def test_a_model_that_is_not_there_is_refused_at_once(desk: Desk) -> None:
    with pytest.raises(UserError, match="no model 'smal'; the nearest that it has: small"):
        desk.submit(lambda s, w: None, "smal")


def test_the_line_has_an_end(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MOST_WAITING", 2)
    hold, began = threading.Event(), threading.Event()

    def waits(studio: Any, watch: Any) -> None:
        began.set()
        hold.wait(30)

    desk.submit(waits)
    assert began.wait(30)
    for _ in range(2):
        desk.submit(lambda s, w: None)
    with pytest.raises(UserError, match="2 requests are waiting already"):
        desk.submit(lambda s, w: None)
    hold.set()

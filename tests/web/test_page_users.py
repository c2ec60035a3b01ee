"""The page in a real browser: learning from pictures, several users, reloading and cancelling, files that are none."""

from __future__ import annotations

import base64
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ldm.checkpoint import EmbeddingFile, read_embeddings, write_embedding
from ldm.pictures.images import read_parameters, save_image
from ldm.pictures.masks import read_mask
from ldm.workflows import training_process
from tests.helpers import ROOT
from tests.web.browsing import choose, finished, generate, newest, number, opened, tab
from tests.web.serving import until
from tests.workflows.test_personalise import PRETENDED

from ldm.web.jobs import Desk, Job  # isort: skip
from ldm.web.page import personalise_use  # isort: skip  # gradio, if the tests are not skipped

PROMPT = "a red star on a blue background"
STEP = "#generate-status >> text=第"  # of so many, in Chinese


def test_what_goes_wrong_is_the_commands_sentence(shared: Any, tmp_path: Path) -> None:
    page = shared
    page.fill("#generate-prompt textarea", "a <lora:nowhere:1>")
    page.click("#generate-run")
    line = page.wait_for_selector("#generate-status .error")
    assert "nowhere" in line.inner_text() and line.get_attribute("role") == "alert"
    (tmp_path / "none.png").write_text("no picture")
    page.set_input_files("#ldm-dropped input[type=file]", tmp_path / "none.png")
    page.wait_for_selector("text=This picture carries no settings.")
    tab(page, "Look inside")
    page.set_input_files("#look-picture input[type=file]", tmp_path / "none.png")
    page.get_by_label("Place (x,y)").fill("1,1")
    page.click("#look-run")
    page.wait_for_selector("#look-status .error, [data-testid=toast-body]")


def test_a_dropped_picture_gives_its_settings_wherever_it_falls(shared: Any, tmp_path: Path) -> None:
    about = {"prompt": "a large blue square", "seed": 5, "steps": 4, "sampler": "plms", "guidance_scale": 2.5}
    save_image(Image.new("RGB", (64, 64)), tmp_path / "made.png", about)
    tab(shared, "Guide")
    data = base64.b64encode((tmp_path / "made.png").read_bytes()).decode()
    shared.evaluate(
        """data => {
            const bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], "made.png", {type: "image/png"}));
            const event = new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true});
            document.querySelector("h1").dispatchEvent(event);
        }""",
        data,
    )
    shared.wait_for_selector("#generate-prompt textarea", state="visible")
    shared.wait_for_function("document.querySelector('#generate-prompt textarea').value === 'a large blue square'")
    assert shared.locator("#generate-seed input").input_value() == "5"
    shared.click("#generate-more button")
    assert shared.locator("#generate-steps input[type=number]").input_value() == "4"
    assert shared.locator("#generate-sampler input").input_value() == "plms"


def test_an_upload_of_300_mb_is_refused(shared: Any, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(300 * 2**20)
    shared.set_input_files("#ldm-dropped input[type=file]", large)
    shared.wait_for_selector("[data-testid=toast-body] >> text=64")


def _mask_is_found(page: Any) -> None:
    """A click on the second square: what is learned of it is seen there."""
    square = page.locator("#learn-squares img").nth(1)
    before = square.get_attribute("src")
    square.click()
    until(lambda: square.get_attribute("src") != before, "the mask is not among the squares")


def test_a_run_is_watched_stopped_gone_on_with_tried_and_taken_along(
    shared: Any, outdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What trains is a stand-in here; tests/workflows/test_personalise.py has a real run by the same functions."""
    write_embedding(tmp_path / "word.safetensors", EmbeddingFile({"*": torch.ones(1, 192)}))
    monkeypatch.setenv("PRETENDED_WORD", str(tmp_path / "word.safetensors"))
    monkeypatch.setenv("PRETENDED_PICTURE", str(ROOT / "examples/word/0.png"))
    monkeypatch.setenv("PRETENDED_SECONDS", "3")
    monkeypatch.setattr(training_process, "command", lambda: PRETENDED)
    monkeypatch.setattr(personalise_use, "TRIED", 1)
    tab(shared, "Personalise")
    shared.click("#personalise-run")
    assert "Pictures are missing" in shared.inner_text("#personalise-status .error")
    shared.click("#learn-sample")
    shared.wait_for_function("document.querySelectorAll('#learn-squares img').length === 5")
    assert "a small * on a yellow background" in shared.input_value("#learn-captions textarea")
    assert shared.input_value("#learn-start textarea, #learn-start input") == "house"
    assert "700 steps" in shared.inner_text("#learn-told")
    _mask_is_found(shared)
    shared.fill("#learn-name input", "stripes")
    shared.click("#personalise-run")
    shared.wait_for_selector("#personalise-status >> text=Learning: step")
    shared.wait_for_selector("#personalise-preview img")
    shared.click("#personalise-cancel")
    shared.wait_for_selector("#personalise-status >> text=Cancelled")
    pictures = next((outdir / "personalise" / "inputs").glob("stripes-*")) / "pictures"
    assert len(list(pictures.glob("*.txt"))) == 5
    (mask,) = pictures.glob("*_mask.png")
    assert mask.name == "01_mask.png" and 0 < float(read_mask(mask).mean()) < 0.9
    monkeypatch.setenv("PRETENDED_SECONDS", "0.02")
    shared.wait_for_function("document.querySelector('#learn-run input').value.includes('stripes')")
    shared.click("#learn-go-on")
    finished(shared, "personalise")
    shared.wait_for_function("document.querySelector('#learned-prompt textarea').value === 'a *'")
    shared.click("#learned-run")
    finished(shared, "learned")
    assert shared.locator("#learned-results img").count() == 1
    shared.wait_for_function("document.querySelector('#learn-format input').value.includes('safetensors')")
    shared.click("#learn-write")
    shared.wait_for_selector("#learn-file >> text=stripes")
    (file,) = (outdir / "personalise" / "files").iterdir()
    assert next(iter(read_embeddings([str(file)]).values())).width == 192


@pytest.fixture(scope="module")
def korean(browser: Any, url: str) -> Any:
    """The page of somebody else, in Korean."""
    return opened(browser, url, locale="ko-KR")


@pytest.fixture(scope="module")
def chinese(browser: Any, url: str) -> Any:
    return opened(browser, url, locale="zh-CN")


def test_texts_are_in_the_browsers_language(korean: Any, chinese: Any) -> None:
    """And so is what is missing on it, if it is the page that says so; and it stays there to be read."""
    for page, name, button, missing in (
        (korean, "스타일 변환", "만들기", "사진이 없습니다"), (chinese, "风格迁移", "开始生成", "缺少照片"),
    ):  # fmt: skip
        assert page.inner_text("#generate-run") == button
        tab(page, name)
        page.click("#restyle-run")
        page.wait_for_selector(f"#restyle-status .error >> text={missing}")
        page.wait_for_timeout(2000)  # by then the page has looked for a request to follow, and found none
        assert missing in page.inner_text("#restyle-status")


def test_two_users_get_their_own_and_each_their_model(
    shared: Any, korean: Any, page_desk: Desk, outdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One asks for three pictures, the other waits; then the first takes another model, and the second keeps his."""
    seen = threading.Event()
    on_step = Job._on_step

    def held(job: Job, step: Any) -> None:
        assert seen.wait(180)
        on_step(job, step)

    monkeypatch.setattr(Job, "_on_step", held)
    one, two, desk = shared, korean, page_desk
    tab(one, "Generate")
    tab(two, "생성")
    two.click("#generate-more button")
    number(one, "#generate-count", 3)
    for page in (one, two):
        number(page, "#generate-steps", 4)
    generate(one, "a green heart", 100)
    until(lambda: desk.current is not None and desk.current.kind == "generate", "it did not begin")
    generate(two, "a yellow square", 200)
    two.wait_for_selector("#generate-status >> text=대기 중, 앞에 1건")
    choose(one, "#ldm-model", "other")
    seen.set()
    finished(two, "generate")
    finished(one, "generate")
    about = read_parameters(newest(outdir / "generate"))
    assert isinstance(about, dict) and (about["prompt"], about["seed"]) == ("a yellow square", 200)
    assert about["model"] == "tiny/model.safetensors"
    assert one.locator("#generate-results img").count() == 3 and two.locator("#generate-results img").count() == 1
    assert "yellow" not in one.inner_text("#generate-results") and "green" not in two.inner_text("#generate-results")
    until(lambda: desk.opened == "other", "the other model was not opened")


def test_a_request_goes_on_when_the_page_is_loaded_anew_and_is_cancelled_there(
    chinese: Any, page_desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that takes long for its pauses leaves the machine to the browser."""
    on_step = Job._on_step

    def slowly(job: Job, step: Any) -> None:
        time.sleep(0.3)
        on_step(job, step)

    monkeypatch.setattr(Job, "_on_step", slowly)
    page, desk = chinese, page_desk
    tab(page, "生成")
    number(page, "#generate-count", 1)
    page.click("#generate-more button")
    number(page, "#generate-steps", 150)
    generate(page, PROMPT, 1)
    page.wait_for_selector(STEP)
    page.reload()
    page.wait_for_selector(STEP)
    assert desk.current is not None and not desk.current.is_cancelled
    page.click("#generate-cancel")
    page.wait_for_selector("#generate-status >> text=已取消")
    until(lambda: desk.current is None, "it went on")

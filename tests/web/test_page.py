"""The page in a real browser: each tab's main journey, two users, cancelling, reloading, files that are none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ldm.checkpoint import EmbeddingFile, read_embeddings, write_embedding
from ldm.pictures.film import read_film
from ldm.pictures.images import read_parameters
from ldm.workflows import training_process
from ldm.workflows.txt2img import Txt2ImgOptions, txt2img
from tests.helpers import ROOT
from tests.web.serving import serving, until
from tests.workflows.small_film import FRAMES, write_small_film_model
from tests.workflows.small_model import write_small_model
from tests.workflows.test_personalise import PRETENDED

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytest.importorskip("gradio", reason="the page needs the extra 'web'")
sync_api = pytest.importorskip("playwright.sync_api", reason="a browser is driven by playwright")
if CHROMIUM is None:
    pytest.skip("no Chromium is installed: apt-get install chromium", allow_module_level=True)

from ldm.web.jobs import Desk  # noqa: E402
from ldm.web.page import personalise_use  # noqa: E402
from ldm.web.page.build import mount  # noqa: E402
from ldm.web.page.gallery import pictures_in  # noqa: E402
from ldm.web.rules import rules_for  # noqa: E402
from ldm.web.server import make_app  # noqa: E402

PROMPT = "a red star on a blue background"
WAIT = 60_000  # milliseconds, on a busy machine


@pytest.fixture(scope="module")
def outdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("app")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A desk beside a folder models/ with another model in it, and one of films."""
    folder = tmp_path_factory.mktemp("elsewhere")
    write_small_model(folder / "models" / "other")
    write_small_film_model(folder / "models" / "films")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield Desk()


@pytest.fixture(scope="module")
def url(desk: Desk, outdir: Path) -> Iterator[str]:
    app = make_app(desk, rules_for("127.0.0.1", None))
    mount(app, desk, outdir)
    with serving(app) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser: Any, url: str, **how: Any) -> Any:
    page = browser.new_context(viewport={"width": 1440, "height": 1000}, **how).new_page()
    page.set_default_timeout(WAIT)
    page.goto(url)
    page.wait_for_function("document.querySelector('#ldm-model input')?.value.includes('tiny')")
    return page


@pytest.fixture(scope="module")
def shared(browser: Any, url: str) -> Any:
    """A page that several journeys use one after another; it remembers where its requests went."""
    page = browser.new_context(viewport={"width": 1440, "height": 1000}).new_page()
    page.set_default_timeout(WAIT)
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(url)
    page.wait_for_function("document.querySelector('#ldm-model input')?.value.includes('tiny')")
    return page


def tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def choose(page: Any, menu: str, option: str) -> None:
    page.locator(f"{menu} input").click()
    page.get_by_role("option", name=option).first.click()


def number(page: Any, field: str, value: float) -> None:
    """Type into the number beside a slider."""
    box = page.locator(f"{field} input[type=number]")
    box.fill(str(value))
    box.press("Tab")


def finished(page: Any, kind: str, wait: int = WAIT) -> str:
    """What the line of a tab says at the end, which must be no error."""
    line = page.wait_for_selector(f"#{kind}-status .done, #{kind}-status .error", timeout=wait)
    assert "error" not in line.get_attribute("class"), line.inner_text()
    return line.inner_text()


def generate(page: Any, prompt: str, seed: int) -> None:
    page.fill("#generate-prompt textarea", prompt)
    page.locator("#generate-seed input").fill(str(seed))
    page.click("#generate-run")


def newest(folder: Path) -> Path:
    return max(folder.rglob("*.png"), key=lambda path: path.stat().st_mtime)


def test_a_prompt_makes_the_picture_that_python_makes(shared: Any, outdir: Path) -> None:
    shared.click("#generate-more button")
    number(shared, "#generate-steps", 8)
    generate(shared, "파란 배경 위의 빨간 별", 7)
    assert finished(shared, "generate").startswith("Done in")
    assert "is read as" in shared.inner_text("#generate-notes")
    made = newest(outdir / "generate")
    asked = Txt2ImgOptions(
        prompt="파란 배경 위의 빨간 별", seed=7, steps=8, n_samples=1, skip_save=True, skip_grid=True, progress=False
    )
    with Image.open(made) as found:
        assert found.tobytes() == txt2img(asked)[0].tobytes()
    assert shared.locator("#generate-results img").count() == 1


def test_a_photograph_is_restyled_and_a_slider_restyles_it_anew(shared: Any, outdir: Path) -> None:
    tab(shared, "Restyle")
    choose(shared, "#restyle-sample", "cat")
    shared.locator("#restyle-styles .thumbnail-item").nth(5).click()
    shared.wait_for_selector("#restyle-chosen .token")
    number(shared, "#restyle-steps", 5)
    number(shared, "#restyle-longest", 64)
    shared.click("#restyle-run")
    finished(shared, "restyle")
    first = newest(outdir / "restyle")
    assert "hokusai_great_wave" in first.name
    gamma = shared.locator("#restyle-gamma input[type=range]")
    gamma.focus()
    gamma.evaluate("one => { one.value = 0.3; one.dispatchEvent(new Event('input', {bubbles: true})); }")
    gamma.dispatch_event("pointerup")
    until(lambda: len(list((outdir / "restyle").glob("*great_wave*.png"))) == 2, "the slider changed nothing")
    finished(shared, "restyle")
    gammas = {read_parameters(path)["gamma"] for path in (outdir / "restyle").glob("*great_wave*.png")}  # type: ignore
    assert gammas == {0.75, 0.3}
    assert shared.locator("#restyle-result img").count() == 2


def test_boxes_are_drawn_and_go_into_the_request(shared: Any, outdir: Path) -> None:
    tab(shared, "Guide")
    shared.fill("#guide-prompt textarea", "a red circle on a white background")
    number(shared, "#guide-box-steps", 4)
    shared.fill("#guide-board input", "red circle")
    board = shared.locator("#guide-board svg")
    board.scroll_into_view_if_needed()
    box = board.bounding_box()
    shared.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 0.2 * box["height"])
    shared.mouse.down()
    shared.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.6 * box["height"], steps=3)
    shared.mouse.up()
    assert shared.input_value("#guide-boxes textarea") == "red circle: 0.10 0.20 0.50 0.60"
    shared.click("#guide-box-run")
    finished(shared, "guide-box")
    assert shared.locator("#guide-results img").count() == 2
    about = read_parameters(newest(outdir / "guide"))
    assert isinstance(about, dict) and "red circle" in str(about["boxes"])


def test_a_picture_is_edited_by_a_second_prompt_and_weights(shared: Any, outdir: Path) -> None:
    tab(shared, "Guide")
    tab(shared, "Weights and edits")
    shared.fill("#edit-prompt textarea", "a red circle on a blue background")
    shared.fill("#edit-second textarea", "a green circle on a blue background")
    shared.wait_for_selector("#edit-weight-1 input")
    number(shared, "#edit-weight-1", 2)
    number(shared, "#guide-edit-steps", 4)
    shared.click("#guide-edit-run")
    finished(shared, "guide-edit")
    about = read_parameters(newest(outdir / "guide" / "guide-edit" / "samples"))
    assert isinstance(about, dict)
    assert (about["edit"], about["reweight"]) == ("a green circle on a blue background", {"green": 2.0})


def test_a_click_shows_where_a_place_looks(shared: Any) -> None:
    tab(shared, "Look inside")
    choose(shared, "#look-sample", "cat")
    shared.wait_for_selector("#look-picture img")
    shared.locator("#look-picture img").click()
    finished(shared, "look")
    assert shared.input_value("#look-spot input") == "128,85"
    assert shared.locator("#look-seen img").count() == shared.locator("#look-sheet img").count() == 1


def test_the_gallery_sends_settings_back_and_throws_away(shared: Any, outdir: Path) -> None:
    tab(shared, "Gallery")
    pictures = shared.locator("#gallery-shown .thumbnail-item")
    pictures.last.wait_for()
    before = pictures.count()
    pictures.nth(before - 1).click()  # the first that was made
    shared.wait_for_selector("#gallery-about >> text=prompt")
    shared.click("#gallery-settings")
    shared.wait_for_selector("#generate-prompt textarea", state="visible")
    assert shared.input_value("#generate-prompt textarea") == "파란 배경 위의 빨간 별"
    tab(shared, "Gallery")
    pictures.nth(before - 1).click()
    shared.wait_for_selector("#gallery-about >> text=prompt")
    shared.click("#gallery-delete")
    until(lambda: (outdir / "bin" / "generate").is_dir(), "nothing was thrown away")
    assert len(list((outdir / "bin").rglob("*.png"))) == 1
    shared.wait_for_function(f"document.querySelectorAll('#gallery-shown .thumbnail-item').length === {before - 1}")


def test_a_picture_is_made_again_from_its_own_settings(shared: Any, outdir: Path) -> None:
    options = Txt2ImgOptions(
        prompt="a large blue square", seed=11, steps=4, n_samples=1, outdir=str(outdir / "generate"), skip_grid=True,
        progress=False,
    )  # fmt: skip
    (first,) = txt2img(options)
    path = newest(outdir / "generate")
    tab(shared, "Generate")
    tab(shared, "Gallery")
    there = len(pictures_in(outdir))
    shared.wait_for_function(f"document.querySelectorAll('#gallery-shown .thumbnail-item').length === {there}")
    shared.locator("#gallery-shown .thumbnail-item").first.click()
    shared.wait_for_selector("#gallery-about >> text=large blue square")
    shared.click("#gallery-again")
    until(lambda: newest(outdir / "generate") != path, "nothing was made")
    finished(shared, "generate")
    with Image.open(newest(outdir / "generate")) as again:
        assert again.tobytes() == first.tobytes()
    tab(shared, "Gallery")
    others = [i for i, path in enumerate(pictures_in(outdir)) if path.is_relative_to(outdir / "restyle")]
    shared.locator("#gallery-shown .thumbnail-item").nth(others[0]).click()
    shared.wait_for_selector("#gallery-about >> text=gamma")
    shared.click("#gallery-again")
    shared.wait_for_selector("text=More than a prompt made this picture")


def test_a_film_begins_with_a_picture(shared: Any, outdir: Path) -> None:
    assert shared.locator("#ldm-model input").input_value().startswith("tiny")
    tab(shared, "Film")
    choose(shared, "#film-sample", "cat")
    shared.wait_for_selector("#film-first img")
    shared.click("#film-run")
    finished(shared, "film")
    shared.wait_for_selector("#film-shown img")
    assert shared.locator("#film-frames img").count() >= 1
    (film,) = (outdir / "film").rglob("*.mp4")
    assert len(read_film(film).frames) == FRAMES and film.with_suffix(".webp").is_file()


def test_a_run_is_watched_stopped_gone_on_with_tried_and_taken_along(
    shared: Any, outdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What trains is a stand-in here; tests/workflows/test_personalise.py has a real run by the same functions."""
    write_embedding(tmp_path / "word.safetensors", EmbeddingFile({"*": torch.ones(1, 192)}))
    monkeypatch.setenv("PRETENDED_WORD", str(tmp_path / "word.safetensors"))
    monkeypatch.setenv("PRETENDED_PICTURE", str(ROOT / "examples/word/0.png"))
    monkeypatch.setenv("PRETENDED_SECONDS", "1")
    monkeypatch.setattr(training_process, "command", lambda: PRETENDED)
    monkeypatch.setattr(personalise_use, "TRIED", 1)
    tab(shared, "Personalise")
    shared.click("#personalise-run")
    assert "Pictures are missing" in shared.inner_text("#personalise-status .error")
    shared.click("#learn-sample")
    shared.wait_for_function("document.querySelectorAll('#learn-squares img').length === 5")
    assert "a large * on a cyan background" in shared.input_value("#learn-captions textarea")
    assert "300 steps" in shared.inner_text("#learn-told")
    shared.fill("#learn-name input", "stripes")
    shared.click("#personalise-run")
    shared.wait_for_selector("#personalise-status >> text=Learning: step")
    shared.wait_for_selector("#personalise-preview img")
    shared.click("#personalise-cancel")
    shared.wait_for_selector("#personalise-status >> text=Cancelled")
    pictures = next((outdir / "personalise" / "inputs").glob("stripes-*")) / "pictures"
    assert len(list(pictures.glob("*.txt"))) == 5
    monkeypatch.setenv("PRETENDED_SECONDS", "0.02")
    shared.wait_for_function("document.querySelector('#learn-run input').value.includes('stripes')")
    shared.click("#learn-go-on")
    finished(shared, "personalise")
    shared.wait_for_function("document.querySelector('#learned-prompt textarea').value === 'a *'")
    shared.click("#learned-run")
    finished(shared, "learned", 3 * WAIT)
    assert shared.locator("#learned-results img").count() == 1
    shared.wait_for_function("document.querySelector('#learn-format input').value.includes('safetensors')")
    shared.click("#learn-write")
    shared.wait_for_selector("#learn-file >> text=stripes")
    (file,) = (outdir / "personalise" / "files").iterdir()
    assert next(iter(read_embeddings([str(file)]).values())).width == 192


def test_nothing_was_asked_of_other_machines(shared: Any, url: str) -> None:
    foreign = [one for one in shared.asked if not one.startswith((url, "data:", "blob:"))]
    assert len(shared.asked) > 50 and not foreign


def test_two_users_get_their_own_and_each_their_model(browser: Any, url: str, desk: Desk, outdir: Path) -> None:
    """One asks for five pictures, the other waits; then the first takes another model, and the second keeps his."""
    one, two = opened(browser, url), opened(browser, url)
    number(one, "#generate-count", 5)
    generate(one, "a green heart", 100)
    until(lambda: desk.current is not None and desk.current.kind == "generate", "it did not begin")
    generate(two, "a yellow square", 200)
    two.wait_for_selector("#generate-status >> text=before you")
    choose(one, "#ldm-model", "other")
    finished(two, "generate")
    finished(one, "generate")
    about = read_parameters(newest(outdir / "generate"))
    assert isinstance(about, dict) and (about["prompt"], about["seed"]) == ("a yellow square", 200)
    assert about["model"] == "tiny/model.safetensors"
    assert one.locator("#generate-results img").count() == 5 and two.locator("#generate-results img").count() == 1
    assert "yellow" not in one.inner_text("#generate-results") and "green" not in two.inner_text("#generate-results")
    until(lambda: desk.opened == "other", "the other model was not opened")
    for page in (one, two):
        page.context.close()


def test_a_request_goes_on_when_the_page_is_loaded_anew_and_is_cancelled_there(
    browser: Any, url: str, desk: Desk
) -> None:
    page = opened(browser, url)
    number(page, "#generate-count", 16)
    page.click("#generate-more button")
    number(page, "#generate-steps", 150)
    generate(page, PROMPT, 1)
    page.wait_for_selector("#generate-status >> text=Step")
    page.reload()
    page.wait_for_selector("#generate-status >> text=Step")
    assert desk.current is not None and not desk.current.is_cancelled
    page.click("#generate-cancel")
    page.wait_for_selector("#generate-status >> text=Cancelled")
    until(lambda: desk.current is None, "it went on")
    page.context.close()


def test_what_goes_wrong_is_the_commands_sentence(browser: Any, url: str, tmp_path: Path) -> None:
    page = opened(browser, url)
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
    page.context.close()


def test_a_dropped_picture_gives_its_settings_wherever_it_falls(browser: Any, url: str, tmp_path: Path) -> None:
    options = Txt2ImgOptions(
        prompt="a large blue square", seed=5, steps=4, n_samples=1, outdir=str(tmp_path), skip_grid=True, progress=False
    )
    txt2img(options)
    page = opened(browser, url)
    tab(page, "Guide")
    import base64

    data = base64.b64encode(newest(tmp_path).read_bytes()).decode()
    page.evaluate(
        """data => {
            const bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], "made.png", {type: "image/png"}));
            const event = new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true});
            document.querySelector("h1").dispatchEvent(event);
        }""",
        data,
    )
    page.wait_for_selector("#generate-prompt textarea", state="visible")
    page.wait_for_function("document.querySelector('#generate-prompt textarea').value === 'a large blue square'")
    assert page.locator("#generate-seed input").input_value() == "5"
    page.context.close()


def test_an_upload_of_300_mb_is_refused(browser: Any, url: str, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(300 * 2**20)
    page = opened(browser, url)
    page.set_input_files("#ldm-dropped input[type=file]", large)
    page.wait_for_selector("[data-testid=toast-body]")
    page.context.close()


def test_texts_are_in_the_browsers_language(browser: Any, url: str) -> None:
    """And so is what is missing on it, if it is the page that says so."""
    for locale, name, button, missing in (
        ("ko-KR", "스타일 변환", "만들기", "사진이 없습니다"), ("zh-CN", "风格迁移", "开始生成", "缺少照片"),
    ):  # fmt: skip
        page = opened(browser, url, locale=locale)
        assert page.inner_text("#generate-run") == button
        tab(page, name)
        page.click("#restyle-run")
        assert missing in page.inner_text("#restyle-status .error")
        page.context.close()


def test_every_field_has_a_name_for_screen_readers(shared: Any) -> None:
    nameless = shared.evaluate(
        """() => [...document.querySelectorAll("main input, main textarea, main select, main button")]
            .filter(one => one.offsetParent && one.type !== "file")
            .filter(one => !(one.getAttribute("aria-label") || one.labels?.length || one.innerText?.trim() || one.title
                             || one.getAttribute("aria-labelledby")))
            .map(one => one.outerHTML.slice(0, 160))"""
    )
    assert not nameless

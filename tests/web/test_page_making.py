"""The page in a real browser: the main journey of each tab that makes or shows pictures; what it asks of whom."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ldm.pictures.film import read_film
from ldm.pictures.images import read_parameters
from ldm.workflows.studio import Studio, open_studio
from ldm.workflows.txt2img import Txt2ImgOptions, txt2img
from tests.web.browsing import choose, finished, generate, newest, number, tab
from tests.web.serving import until
from tests.workflows.small_film import FRAMES

from ldm.web.page.gallery import pictures_in  # isort: skip  # gradio, if the tests are not skipped

NAMELESS = """() => [...document.querySelectorAll("main input, main textarea, main select, main button")]
    .filter(one => one.offsetParent && one.type !== "file")
    .filter(one => !(one.getAttribute("aria-label") || one.labels?.length || one.innerText?.trim() || one.title
                     || one.getAttribute("aria-labelledby")))
    .map(one => one.outerHTML.slice(0, 160))"""


@pytest.fixture(scope="module")
def studio() -> Studio:
    """The small model as a program opens it, beside the page's own."""
    return open_studio(device="cpu")


def test_a_prompt_makes_the_picture_that_python_makes(shared: Any, outdir: Path, studio: Studio) -> None:
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
        assert found.tobytes() == txt2img(asked, studio)[0].tobytes()
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


def test_a_picture_is_made_again_from_its_own_settings(shared: Any, outdir: Path, studio: Studio) -> None:
    options = Txt2ImgOptions(
        prompt="a large blue square", seed=11, steps=4, n_samples=1, outdir=str(outdir / "generate"), skip_grid=True,
        progress=False,
    )  # fmt: skip
    (first,) = txt2img(options, studio)
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
    choose(shared, "#film-heading", "↓")
    shared.click("#film-run")
    finished(shared, "film")
    shared.wait_for_selector("#film-shown img")
    assert shared.locator("#film-frames img").count() >= 1
    (film,) = (outdir / "film").rglob("*.mp4")
    assert len(read_film(film).frames) == FRAMES and film.with_suffix(".webp").is_file()
    asked = json.loads(film.with_suffix(".json").read_text())["parameters"]
    assert asked["heading"] == 90 and asked["path"][1][1] > asked["path"][0][1] and film.parent.name.endswith("-90")


def test_nothing_was_asked_of_other_machines(shared: Any, url: str) -> None:
    foreign = [one for one in shared.asked if not one.startswith((url, "data:", "blob:"))]
    assert len(shared.asked) > 50 and not foreign


def test_every_field_of_every_tab_has_a_name_for_screen_readers(shared: Any) -> None:
    for name in ("Generate", "Personalise", "Restyle", "Guide", "Weights and edits", "Look inside", "Film", "Gallery"):
        tab(shared, name)
        nameless = shared.evaluate(NAMELESS)
        assert not nameless, name

"""Boxes and words that people ask for: how they are written, where they are found, what a request does with them."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from ldm.additions.words import EmbeddingManager
from ldm.control import Box, Boxes, Mask
from ldm.pictures.images import read_parameters
from ldm.util import UserError
from ldm.workflows.guide.places import nouns, places
from ldm.workflows.guide.wishes import read_wishes
from ldm.workflows.request import Txt2ImgOptions
from ldm.workflows.txt2img import Made, txt2img
from ldm.workflows.watch import Watch

PROMPT = "a red circle on a blue square"
LINE = "red circle: 0 0 0.5 0.5; square: 0.5 0.5 1 1"


@pytest.fixture
def options(tmp_path: Path) -> Txt2ImgOptions:
    return Txt2ImgOptions(
        prompt="a red circle on a blue", outdir=str(tmp_path / "out"), steps=10, n_samples=1, progress=False,
        layout_threshold=0.0,
    )  # fmt: skip


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=int)


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """A picture with a red and a blue rectangle on white."""
    image = Image.new("RGB", (40, 20), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 9, 9), fill=(255, 0, 0))
    draw.rectangle((20, 10, 39, 19), fill=(10, 0, 240))
    image.save(tmp_path / "drawn.png")
    return tmp_path / "drawn.png"


def test_the_ways_to_write_boxes(tmp_path: Path, drawn: Path) -> None:
    first, second = read_wishes(LINE)
    assert (first.word, second.word) == ("red circle", "square")
    assert first.region == Boxes((Box(0, 0, 0.5, 0.5),)) and first.said == "0 0 0.5 0.5"
    two = Boxes((Box(0, 0, 0.5, 0.5), Box(0.5, 0, 1, 0.5)))
    for several in (
        "a: 0 0 .5 .5, .5 0 1 .5",
        "a: 0 0 .5 .5; a: .5 0 1 .5",
        {"a": [[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5]]},
    ):
        assert [wish.region for wish in read_wishes(several)] == [two]
    assert read_wishes("a: 0,0,.5,.5")[0].region == Boxes((Box(0, 0, 0.5, 0.5),))
    (tmp_path / "boxes.json").write_text(json.dumps({"red circle": [0, 0, 0.5, 0.5], "square": [[0.5, 0.5, 1, 1]]}))
    for way in (str(tmp_path / "boxes.json"), tmp_path / "boxes.json", (tmp_path / "boxes.json").read_text()):
        assert [(w.word, w.region) for w in read_wishes(way)] == [(w.word, w.region) for w in (first, second)]
    mask = torch.zeros(8, 8)
    mask[:, :4] = 1
    np.save(tmp_path / "half.npy", mask.numpy())
    for given in ({"a": mask}, f"a: {tmp_path / 'half.npy'}", {"a": tmp_path / "half.npy"}, {"a": Mask(mask)}):
        (wish,) = read_wishes(given)
        assert wish.region.cells((2, 2)).tolist() == [[1, 0], [1, 0]]
    red, blue = read_wishes(f"circle: {drawn}#ff0000; star: {drawn}#blue")
    assert red.region.cells((2, 4)).tolist() == [[1, 0, 0, 0], [0, 0, 0, 0]]
    assert blue.region.cells((2, 4)).tolist() == [[0, 0, 0, 0], [0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ("circle: 0 0 1.2 1", "does not lie in the picture"), ("circle: 0.5 0 0.2 1", "empty or inverted"),
        ("circle: 0 0 1", "takes four numbers"), ("circle: left", "takes four numbers"),
        ("0 0 1 1", "no word with a box"), (": 0 0 1 1", "more boxes than words"),
        ("circle: 0 0 1 1; : 0 0 1 1", "more boxes than words"), ("", "there is no box"),
        ("nowhere.json", "cannot read the boxes"), ("circle: nowhere.png", "no mask file"), ("{", "JSON"),
        ({"circle": 3}, "no place for 'circle'"), ({"circle": []}, "takes four numbers"), (7, "boxes are given as"),
        ({"circle": [[0, 0, 1, float("nan")]]}, "does not lie in the picture"),
    ],
)  # fmt: skip
def test_boxes_that_cannot_be_read(given: Any, what: str) -> None:
    with pytest.raises(UserError, match=what):
        read_wishes(given)


def test_drawn_pictures_that_do_not_say_it(drawn: Path) -> None:
    for given, what in (
        (str(drawn), "which colour is which word"), (f"a: {drawn}#00ff00", "nothing in the colour"),
        (f"a: {drawn}#nocolour", "is no colour"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=what):
            read_wishes(given)


def test_places_of_words(model: Any) -> None:
    assert places(model, "a red circle on a", "red circle") == [(2, 3)]
    assert places(model, "red a red", "red") == [(1,), (3,)]
    assert places(model, "red a red", "red#2") == [(3,)]
    assert nouns(model, "a red circle on the square") == ["circle", "square"]
    for prompt, word, what in (
        ("a red circle", "square", "has no word 'square'"), ("a red", "red#2", "1 times"), ("a red", "", "has no word"),
        ("a a a a a a red", "red", "is cut before 'red'"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=what):
            places(model, prompt, word)
    with pytest.raises(UserError, match="no word that names a thing"):
        nouns(model, "a red on the")


def test_places_of_learned_words(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    words = EmbeddingManager(model.cond_stage_model, ["<toy>"], num_vectors_per_token=2)
    monkeypatch.setattr(model, "embedding_manager", words)
    assert places(model, "a <toy> on red", "<toy>") == [(2, 3)]
    assert places(model, "a <toy> on red", "red") == [(5,)]
    assert places(model, "a <toy> on red", "<toy> on") == [(2, 3, 4)]
    assert nouns(model, "a <toy> on square") == ["<toy>", "square"]


def test_a_request_with_boxes(options: Txt2ImgOptions, model: Any, caplog: pytest.LogCaptureFixture) -> None:
    made: list[Made] = []
    plain = pixels(txt2img(replace(options, skip_save=True, skip_grid=True), model)[0])
    guided = replace(options, boxes="red circle: 0 0 0.5 0.5; blue: 0.55 0.55 0.6 0.6")
    with caplog.at_level(logging.WARNING):
        (image,) = txt2img(guided, model, Watch(on_result=made.append))
    assert "'blue' is given (0.55 0.55 0.6 0.6) is smaller than a cell of the 8x8 map" in caplog.text
    assert abs(pixels(image) - plain).max() > 1
    about = read_parameters(Path(options.outdir) / "samples" / "00000.png")
    assert isinstance(about, dict)
    assert about["boxes"] == {"red circle": "0 0 0.5 0.5", "blue": "0.55 0.55 0.6 0.6"}
    losses = about["layout_loss"]
    assert isinstance(losses, list) and [step for step, _ in losses] == [0] * 5 + [1] * 5
    assert 0 < losses[-1][1] < losses[0][1] < 1
    boxed = Image.open(Path(options.outdir) / "boxes" / "00000.png")
    assert boxed.size == (384, 384) and made[0].boxed is not None


@pytest.mark.parametrize("sampler", ["plms", "dpm_solver"])
def test_a_guided_picture_is_its_seed(options: Txt2ImgOptions, model: Any, sampler: str) -> None:
    """At any batch size, with both kinds of guidance; and the model is as it was."""
    quiet = replace(options, skip_save=True, skip_grid=True, sampler=sampler, steps=4, layout_until=0.5)
    quiet = replace(quiet, boxes={"red": [0, 0, 0.5, 0.5]}, excite="circle", excite_until=0.25, layout_iterations=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    together = txt2img(replace(quiet, n_samples=2), model)
    alone = txt2img(replace(quiet, seed=43), model)
    assert abs(pixels(together[1]) - pixels(alone[0])).max() <= 1
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_prompts_from_a_file(options: Txt2ImgOptions, model: Any, tmp_path: Path) -> None:
    """A prompt without the word is made as it is, but some prompt must have it."""
    (tmp_path / "prompts.txt").write_text("a red circle\na blue square\n")
    several = replace(options, from_file=str(tmp_path / "prompts.txt"), boxes="circle: 0 0 .5 .5", n_samples=2)
    made: list[Made] = []
    txt2img(several, model, Watch(on_result=made.append))
    assert made[0].boxed is not None and made[1].boxed is None
    plain = txt2img(replace(options, prompt="a blue square", seed=43, skip_save=True, skip_grid=True), model)
    assert abs(pixels(made[1].image) - pixels(plain[0])).max() <= 1
    with pytest.raises(UserError, match="has no word 'background'"):
        txt2img(replace(several, boxes="background: 0 0 1 1"), model)


def test_excite(options: Txt2ImgOptions, model: Any) -> None:
    quiet = replace(options, skip_grid=True, steps=4)
    plain = pixels(txt2img(replace(quiet, skip_save=True), model)[0])
    for words in ("circle, blue", "auto"):
        assert abs(pixels(txt2img(replace(quiet, excite=words), model)[0]) - plain).max() > 0
    about = read_parameters(Path(options.outdir) / "samples" / "00000.png")
    assert isinstance(about, dict) and isinstance(about["excite_loss"], list)
    assert about["excite"] == ["circle", "blue"] and {step for step, _ in about["excite_loss"]} == {0, 1, 2}
    assert not (Path(options.outdir) / "boxes").exists()


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"boxes": "dog: 0 0 1 1"}, "no word 'dog'"),
    ({"excite": "dog"}, "no word 'dog'"),
    ({"excite": " , "}, "--excite and --blend take"),
    ({"boxes": "red: 0 0 1 1", "layout_scale": 0.0}, "above 0"),
    ({"boxes": "red: 0 0 1 1", "layout_until": 2.0}, "0 and 1"),
    ({"boxes": "red: 0 0 1 1", "layout_layers": "input_blocks.9"}, "matches"),
    ({"excite": "red", "excite_factor": 4}, "excite_factor 4"),
    ({"boxes": "red: 0 0 .5 .5", "layout_scale": 1e30}, "not finite"),
]


@pytest.mark.parametrize(("change", "what"), REFUSED)
def test_what_is_refused(options: Txt2ImgOptions, model: Any, change: dict[str, Any], what: str) -> None:
    with pytest.raises(UserError, match=what):
        txt2img(replace(options, **change), model)
    assert not list(Path(options.outdir).rglob("*.png"))

"""What is said before pictures come: words that are not known, signs of other programs, odd sizes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from ldm.checkpoint import EmbeddingFile, write_embedding
from ldm.modules.encoders.modules import BERTEmbedder
from ldm.workflows.expectations import report_prompts, report_size, unknown_words
from ldm.workflows.prompt_syntax import not_understood
from ldm.workflows.txt2img import Txt2ImgOptions, txt2img
from tests.helpers import ROOT


def said(model: Any, caplog: pytest.LogCaptureFixture, **options: Any) -> str:
    caplog.clear()
    given = {"n_samples": 1, "steps": 1, "skip_save": True, "skip_grid": True, "progress": False, **options}
    with caplog.at_level(logging.WARNING):
        txt2img(Txt2ImgOptions(**given), model)
    return caplog.text


def test_words_that_the_vocabulary_lacks_are_named(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    text = said(model, caplog, prompt="a watercolour of a Fox, red", negative_prompt="mud")
    assert "no word for 'watercolour', 'of', 'Fox': in 'a watercolour of a Fox, red'" in text
    assert "no word for 'mud'" in text
    assert "no word" not in said(model, caplog, prompt="a Red circle, on a blue background")


def test_learned_words_are_known(model: Any, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    path = tmp_path / "cat.safetensors"
    write_embedding(path, EmbeddingFile({"<cat-toy>": torch.ones(1, 16)}))
    assert not said(model, caplog, prompt="a red <cat-toy>", embedding_path=str(path))
    assert "no file brings the learned word '<cat-toy>'" in said(model, caplog, prompt="a red <cat-toy>")


@pytest.mark.parametrize(
    ("prompt", "names"),
    [("a red *, on blue", ["*"]), ("* and <my-cat>", ["*", "<my-cat>"]), ("a red**circle 2*3", []), ("2 * 3", ["*"])],
)
def test_learned_words_without_a_file(
    model: Any, caplog: pytest.LogCaptureFixture, prompt: str, names: list[str]
) -> None:
    text = said(model, caplog, prompt=prompt)
    assert text.count("no file brings") == len(names)
    assert all(f"no file brings the learned word '{name}' of '{prompt}': --embedding_path" in text for name in names)


def test_a_lora_may_know_what_the_model_does_not(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    report_prompts(model, ["a red mud"], taught=True)
    assert "no word for 'mud': in 'a red mud' that is what a LoRA was taught by that name, or nothing" in caplog.text


def test_the_small_model_names_what_it_cannot_draw() -> None:
    encoder = BERTEmbedder(8, 1, 672, tokenizer=str(ROOT / "models/ldm/tiny/vocab.txt"))
    assert unknown_words(encoder, "a watercolour of a fox between a small red star and Nanshan") == [
        "watercolour", "fox", "Nanshan",
    ]  # fmt: skip
    assert not unknown_words(encoder, "it\u2019s a \u201cred star\u201d \u2014 on blue \u2026 at 20\u00b0")
    assert unknown_words(encoder, "a \U0001f98a and a star, \U0001f525\U0001f525!") == ["\U0001f98a", "\U0001f525"]


@pytest.mark.parametrize("text", ["a", "파란 배경 위의 빨간 별", "()", "3 %"])
def test_what_is_no_unknown_english_word(text: str) -> None:
    encoder = BERTEmbedder(8, 1, 672, tokenizer=str(ROOT / "models/ldm/tiny/vocab.txt"))
    assert unknown_words(encoder, text) == []


@pytest.mark.parametrize(
    ("prompt", "signs"),
    [
        ("a (red:1.3) [circle] ((blue))", []),
        ("a [red:blue:0.5] [a|b] circle <hypernet:style:0.8>", ["<hypernet:style:0.8>", "[red:blue:0.5]", "[a|b]"]),
        ("red circle AND square", ["AND"]),
        ("a circle (red, not blue) and a square: 3", []),
    ],
)
def test_signs_of_other_programs(model: Any, caplog: pytest.LogCaptureFixture, prompt: str, signs: list[str]) -> None:
    assert list(not_understood(prompt)) == signs
    text = said(model, caplog, prompt=prompt)
    assert all(f"'{sign}' " in text for sign in signs) and ("in other programs" in text) == bool(signs)


@pytest.mark.parametrize(
    ("size", "words"),
    [((64, 64), ""), ((32, 48), "twice"), ((16, 32), "cut off"), ((32, 40), "")],
)
def test_a_size_far_from_the_training_says_what_to_expect(
    caplog: pytest.LogCaptureFixture, size: tuple[int, int], words: str
) -> None:
    trained = (64, 64) if size == (64, 64) else (32, 32)
    report_size(size, trained)
    assert (words in caplog.text) if words else not caplog.text


def test_the_command_says_it(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    text = said(model, caplog, height=48, width=64)
    assert "64x48 is far from the 32x32 that this model is for: things often come twice, or fall apart" in text


def test_choices_in_a_negative_prompt_are_said(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Those of a prompt are made; there is one negative prompt for all pictures."""
    assert "'{red|blue}' stands for one of several words" in said(model, caplog, negative_prompt="{red|blue} circle")
    assert "stands for" not in said(model, caplog, prompt="{red|blue} circle")

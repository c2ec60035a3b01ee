"""Guidance by attention and weights of words beside what else a request may have: two text encoders, LoRAs, words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ldm.additions.base import applied
from ldm.additions.lora.scales import parse_lora
from ldm.additions.reading import read_loras
from ldm.workflows.guide.places import places
from ldm.workflows.models import open_model
from ldm.workflows.prompts import conditions
from ldm.workflows.request import Txt2ImgOptions
from ldm.workflows.txt2img import Made, txt2img
from ldm.workflows.watch import Watch
from tests.additions.lora.files import write_lora
from tests.workflows.small_model import write_small_model
from tests.workflows.small_xl import CLIP_L, write_small_xl

PROMPT = "a red cat and a blue dog"


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return open_model(write_small_xl(tmp_path_factory.mktemp("xl")), device="cpu")[0]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return open_model(write_small_model(tmp_path_factory.mktemp("small")), device="cpu")[0]


def asked(**options: Any) -> Txt2ImgOptions:
    return Txt2ImgOptions(
        prompt=PROMPT, n_samples=1, steps=2, skip_save=True, skip_grid=True, progress=False, layout_threshold=0.0,
        layout_until=0.5, **options,
    )  # fmt: skip


def made(options: Txt2ImgOptions, model: Any) -> list[Made]:
    found: list[Made] = []
    txt2img(options, model, Watch(on_result=found.append))
    return found


def differ(one: Made, other: Made) -> int:
    pictures = (np.asarray(each.image, dtype=int) for each in (one, other))
    return int(abs(np.subtract(*pictures)).max())


def test_words_stand_at_one_place_for_both_encoders(xl: Any) -> None:
    (place,) = places(xl, PROMPT, "blue dog")
    encoders = xl.cond_stage_model.text_encoders
    assert len(encoders) == 2
    for encoder in encoders:
        row = encoder.tokenize(PROMPT)[0].tolist()
        assert [row[i] for i in place] == encoder.tokenizer.pieces("blue dog")


def test_boxes_and_neglected_words_on_two_encoders(xl: Any) -> None:
    """The energies fall, the picture changes, and it is its seed's in any batch."""
    options = asked()
    (plain,) = made(options, xl)
    guided = replace(options, boxes="cat: 0 0 .5 .5; blue dog: .5 .5 1 1", excite="cat, dog", excite_until=0.5)
    both = made(replace(guided, n_samples=2), xl)
    (second,) = made(replace(guided, seed=options.seed + 1), xl)
    losses = [loss for _, loss in both[0].about["layout_loss"]]
    assert len(losses) == 5 and losses[4] < losses[0] and len(both[0].about["excite_loss"]) >= 1
    assert differ(both[0], plain) > 1 and differ(both[1], second) <= 1


def test_weights_keep_the_mean_of_each_encoder(xl: Any) -> None:
    """As in the programs where the syntax comes from, in which each encoder weighs words by itself."""
    with torch.no_grad():
        plain, weighed = (
            conditions(xl, [text], "", (8, 8), False)[0]["c_crossattn"][0]
            for text in (PROMPT, "a red (cat:1.4) and a blue [dog]")
        )
    weights = torch.ones(77, 1)
    for word, weight in (("cat", 1.4), ("dog", 1 / 1.1)):
        weights[list(places(xl, PROMPT, word)[0])] = weight
    for own, changed in zip(plain.split([CLIP_L, 32], dim=2), weighed.split([CLIP_L, 32], dim=2), strict=True):
        torch.testing.assert_close(changed, own * weights * own.mean() / (own * weights).mean())


def test_guidance_sees_the_network_with_its_loras(small: Any, tmp_path: Path) -> None:
    """Named or called in the prompt, it is the guided picture of the model that has them; nothing stays."""
    write_lora(tmp_path / "one.safetensors", small, 1)
    before = {name: value.clone() for name, value in small.state_dict().items()}
    options = replace(asked(), prompt="a red circle on a blue", boxes="red circle: 0 0 .5 .5")
    named = replace(options, lora=f"{tmp_path}/one.safetensors=0.7")
    called = replace(options, prompt=f"{options.prompt} <lora:one:0.7>", lora_dir=str(tmp_path))
    (without,), (first,), (second,) = (made(each, small) for each in (options, named, called))
    with applied(small, read_loras(small, [parse_lora(str(named.lora))], "interpolate")):
        (there,) = made(options, small)
    assert differ(first, there) == differ(second, there) == 0 and differ(first, without) > 1
    assert first.about["layout_loss"] == there.about["layout_loss"] != without.about["layout_loss"]
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())


def test_guidance_of_a_word_that_a_lora_brings(small: Any, tmp_path: Path) -> None:
    word = {"bundle_emb.<s1>.string_to_param.*": torch.randn(2, 16, generator=torch.Generator().manual_seed(3))}
    write_lora(tmp_path / "word.safetensors", small, 3, **word)
    options = replace(asked(lora=f"{tmp_path}/word.safetensors"), prompt="a <s1> on a blue")
    (plain,), (boxed,) = (made(each, small) for each in (options, replace(options, boxes="<s1>: 0 0 .5 .5")))
    assert differ(boxed, plain) > 1 and boxed.boxed is not None

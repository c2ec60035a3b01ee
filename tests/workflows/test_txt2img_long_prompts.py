"""txt2img with prompts that are longer than the model's text encoder."""

from __future__ import annotations

import copy
import logging
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ldm.building.inference import inference_defaults
from ldm.util import ConfigError, instantiate_from_config
from ldm.workflows.prompts import conditions, read_prompt, token_weights
from ldm.workflows.studio import Studio
from ldm.workflows.txt2img import Txt2ImgOptions, txt2img
from tests.modules.encoders.vocabularies import bpe_size, write_bpe
from tests.workflows.small_model import CONFIG

PROMPT = "a red cat, " * 66 + "a "  # 266 tokens


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A small model on CLIP's encoder, no layer of which is left at zero."""
    folder = write_bpe(tmp_path_factory.mktemp("bpe"))
    node = copy.deepcopy(CONFIG["model"])
    width = node["params"]["cond_stage_config"]["params"]["n_embed"]
    sizes = {"hidden_size": width, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
             "vocab_size": bpe_size(folder)}  # fmt: skip
    node["params"]["cond_stage_config"] = {
        "target": "ldm.modules.encoders.modules.FrozenCLIPEmbedder",
        "params": {"version": "tiny", "config": sizes, "tokenizer": str(folder)},
    }
    torch.manual_seed(0)
    built = instantiate_from_config(node).eval()
    for parameter in built.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.15)
    return built


def draw(model: Any, prompt: str, **options: Any) -> np.ndarray:
    given = Txt2ImgOptions(prompt=prompt, n_samples=1, steps=2, guidance_scale=4.0, skip_grid=True, skip_save=True,
                           progress=False, **options)  # fmt: skip
    return np.asarray(txt2img(given, model)[0]).astype(int)


def test_the_end_of_a_long_prompt_is_cut_and_said_or_read(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    ends = [PROMPT + "cat", PROMPT + "dog"]
    with caplog.at_level(logging.WARNING):
        cut = [draw(model, prompt) for prompt in ends]
    assert np.array_equal(cut[0], cut[1])
    assert "a prompt is longer than what the model reads, and ends without" in caplog.text
    assert "...'; --long_prompts reads it all" in caplog.text
    caplog.clear()
    whole = [draw(model, prompt, long_prompts=True) for prompt in ends]
    assert not np.array_equal(whole[0], whole[1]) and not np.array_equal(whole[0], cut[0])
    assert "longer than" not in caplog.text
    assert np.array_equal(draw(model, ends[0]), cut[0]), "a request leaves nothing on the model"


def test_a_short_prompt_and_a_long_negative_one(model: Any) -> None:
    short = draw(model, "a cat")
    assert np.array_equal(draw(model, "a cat", long_prompts=True), short)
    away = [draw(model, "a cat", long_prompts=True, negative_prompt=PROMPT + end) for end in ("cat", "dog")]
    assert not np.array_equal(away[0], away[1])


def test_the_yaml_may_ask_for_it(model: Any) -> None:
    studio = Studio(model, "small", {"long_prompts": True})
    ends = [PROMPT + "cat", PROMPT + "dog"]
    assert np.array_equal(draw(studio, ends[0]), draw(model, ends[0], long_prompts=True))
    assert np.array_equal(draw(studio, ends[0], long_prompts=False), draw(model, ends[0]))
    assert inference_defaults({"inference": {"long_prompts": True}}) == {"long_prompts": True}
    with pytest.raises(ConfigError, match=r"inference\.long_prompts"):
        inference_defaults({"inference": {"long_prompts": "yes"}})


def test_weights_in_any_chunk(model: Any) -> None:
    """A chunk with a weight is what that chunk is as a prompt of its own with that weight; others stay as they are."""
    parts = ["a cat (red dog:1.5), a cat", "a (cat)", "a dog"]
    with torch.no_grad(), model.cond_stage_model.whole_prompts():
        (long,) = conditions(model, [" BREAK ".join(parts)], "", (8, 8), False)[0]["c_crossattn"]
    assert long.shape[1] == 3 * 77
    for part, chunk in zip(parts, long.split(77, dim=1), strict=True):
        with torch.no_grad():
            (alone,) = conditions(model, [part], "", (8, 8), False)[0]["c_crossattn"]
            (plain,) = conditions(model, [part.translate({40: None, 41: None}).replace(":1.5", "")], "", (8, 8), False)[
                0
            ]["c_crossattn"]
        torch.testing.assert_close(chunk, alone)
        assert torch.equal(alone, plain) == (part == "a dog")


def test_a_weight_across_the_end_of_a_chunk_and_beside_shorter_prompts(model: Any) -> None:
    text = "dog " * 74 + "(cat red:2) dog"  # cat is the last of a chunk, red the first of the next
    with torch.no_grad(), model.cond_stage_model.whole_prompts():
        (long,) = conditions(model, [text, "a cat"], "", (8, 8), False)[0]["c_crossattn"]
        weights = token_weights(model, read_prompt(model, text), 77)
        (plain,) = conditions(model, ["dog " * 74 + "cat red dog", "a cat"], "", (8, 8), False)[0]["c_crossattn"]
    assert weights.nonzero().numel() == 154 and (weights == 2).nonzero().flatten().tolist() == [75, 78]
    ratio = long[0] / plain[0]
    mean = [(ratio[i] / ratio[j]).median() for i, j in ((75, 1), (78, 79))]
    assert mean == pytest.approx([2, 2], rel=1e-4)
    assert torch.equal(long[1], plain[1])


def test_the_end_of_200_words_with_a_weight_changes_the_picture(model: Any) -> None:
    start = "a red cat " * 66
    pictures = [draw(model, f"{start}{end}", long_prompts=True) for end in ("a cat", "a (cat:1.8)", "a dog")]
    assert not np.array_equal(pictures[0], pictures[1]) and not np.array_equal(pictures[0], pictures[2])

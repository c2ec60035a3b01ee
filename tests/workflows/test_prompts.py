"""Weights of words on what the network sees, for encoders of every family."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ldm.additions.words import EmbeddingManager
from ldm.models.diffusion.condition import Parts
from ldm.modules.encoders.prompt_weights import read_weights
from ldm.util import UserError
from ldm.workflows.prompts import conditions, token_weights, weighted
from ldm.workflows.request import Txt2ImgOptions
from ldm.workflows.txt2img import txt2img
from tests.helpers import golden_case, golden_embedder


def context(model: Any, prompt: str, negative: str = "", guided: bool = False) -> tuple[Any, Any]:
    with torch.no_grad():
        return conditions(model, [prompt, "a blue square"], negative, (8, 8), guided)


def test_a_prompt_without_signs_is_what_it_was(model: Any) -> None:
    with torch.no_grad():
        plain = model.condition(["a red circle", "a blue square"], size=(8, 8))
        away = model.unconditional(plain, "blue")
    led, left = context(model, "a red circle", "blue", guided=True)
    assert torch.equal(led["c_crossattn"][0], plain["c_crossattn"][0])
    assert torch.equal(left["c_crossattn"][0], away["c_crossattn"][0])


def test_weights_multiply_the_tokens_of_their_words(model: Any) -> None:
    plain, _ = context(model, "a red circle on a")
    led, left = context(model, "a (red circle:1.5) [on] a", "(blue:0.5) red", guided=True)
    ratio = led["c_crossattn"][0] / plain["c_crossattn"][0]
    expected = torch.tensor([1, 1, 1.5, 1.5, 1 / 1.1, 1, 1, 1])
    torch.testing.assert_close(ratio[0], expected[:, None].expand_as(ratio[0]))
    assert torch.equal(led["c_crossattn"][0][1], plain["c_crossattn"][0][1])
    with torch.no_grad():
        away = model.unconditional(plain, "blue red")["c_crossattn"][0]
    torch.testing.assert_close(left["c_crossattn"][0][:, 1], 0.5 * away[:, 1])
    assert torch.equal(left["c_crossattn"][0][:, 2:], away[:, 2:])


def test_learned_words_and_layers(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    words = EmbeddingManager(model.cond_stage_model, ["[V]"], num_vectors_per_token=2)
    monkeypatch.setattr(model, "embedding_manager", words)
    assert token_weights(model, read_weights("a ([V]:2) (red)", ["[V]"]), 8).tolist() == pytest.approx(
        [1, 1, 2, 2, 1.1, 1, 1, 1]
    )
    read = [read_weights("a (red:2)")]
    layers: Parts = {"c_crossattn": [torch.ones(1, 16, 4)]}
    assert weighted(model, layers, read)["c_crossattn"][0][0, :, 0].tolist() == [1, 1, 2, 1, 1, 1, 1, 1] * 2
    for wrong, what in ((torch.ones(1, 8).long(), "timesteps"), (torch.ones(1, 1, 4), "one by one")):
        with pytest.raises(UserError, match=what):
            weighted(model, {"c_crossattn": [wrong]}, read)


@dataclass
class Around:
    """As much of a model as a condition takes."""

    cond_stage_model: Any
    embedding_manager: Any = None


def test_clips_mean_stays_for_each_picture_by_itself() -> None:
    """As in the programs where the syntax comes from, but whatever is beside a picture in its batch."""
    encoder = golden_embedder(golden_case("ti_clip"))
    assert encoder.family == "clip"
    tokens = torch.randint(0, 40, (2, encoder.max_length), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = encoder.encode_tokens(tokens)
    around = Around(encoder)

    class Pieces:
        """A vocabulary of words between blanks."""

        max_length = encoder.max_length
        unknown = None

        def pieces(self, text: str) -> list[int]:
            return list(range(5, 5 + len(text.split())))

    encoder.tokenizer = Pieces()
    read = [read_weights("a (red:1.5) circle"), read_weights("a circle")]
    led = weighted(around, {"c_crossattn": [plain]}, read)["c_crossattn"][0]
    assert torch.equal(led[1], plain[1])
    torch.testing.assert_close(led[0].mean(), plain[0].mean())
    by_hand = plain[0] * torch.tensor([1, 1, 1.5] + [1] * (encoder.max_length - 3))[:, None]
    torch.testing.assert_close(led[0], by_hand * plain[0].mean() / by_hand.mean())


def test_pictures_with_weights(model: Any, tmp_path: Path) -> None:
    def picture(prompt: str, **more: Any) -> np.ndarray:
        options = Txt2ImgOptions(
            prompt=prompt, outdir=str(tmp_path), n_samples=1, steps=4, skip_save=True, skip_grid=True, progress=False,
            **more,
        )  # fmt: skip
        return np.asarray(txt2img(options, model)[0], dtype=int)

    plain = picture("a red circle")
    assert abs(picture("a (red:3) circle") - plain).max() > 1
    assert np.array_equal(picture("a (red:1) circle"), plain)
    boxed = picture("a red circle", boxes="circle: 0 0 .5 .5", layout_until=0.5)
    assert np.array_equal(picture("a (red:1) circle", boxes="circle: 0 0 .5 .5", layout_until=0.5), boxed)

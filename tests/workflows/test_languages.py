"""txt2img in other languages, from a folder with a model, an encoder and an aligner."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from ldm.modules.encoders.multilingual import Multilingual
from ldm.modules.encoders.post_BERT import AdapterBERTEmbedder
from ldm.util import UserError
from ldm.workflows.txt2img import Txt2ImgOptions, txt2img
from tests.modules.encoders.multilingual_files import write_aligner, write_encoder
from tests.workflows.small_model import write_small_model

KOREAN = "파란 배경 위의 빨간 원"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that reads English only, and in ``both`` one that reads other languages too."""
    path = tmp_path_factory.mktemp("models")
    for name in ("english", "both"):
        write_small_model(path / name)
    write_encoder(path / "both/multilingual")
    write_aligner(path / "both/aligner.safetensors")
    config = OmegaConf.load(path / "both/config.yaml")
    node = config.model.params.cond_stage_config
    node.target = "ldm.modules.encoders.pre_BERT.MultilingualTextEmbedder"
    node.params.aligner = "aligner.safetensors"
    OmegaConf.save(config, path / "both/config.yaml")
    return path


def draw(folder: Path, **options: Any) -> np.ndarray:
    model = str(folder / "model.safetensors")
    (image,) = txt2img(Txt2ImgOptions(ckpt=model, n_samples=1, steps=2, skip_save=True, skip_grid=True, device="cpu",
                                      progress=False, **options))  # fmt: skip
    return np.asarray(image).astype(int)


def test_foreign_prompts_reach_the_picture_and_english_ones_are_as_ever(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    english = "a red circle"
    assert np.array_equal(draw(folder / "english", prompt=english), draw(folder / "both", prompt=english))
    with caplog.at_level(logging.INFO):
        korean = draw(folder / "both", prompt=KOREAN)
    assert f"'{KOREAN}' is read as '" in caplog.text
    assert np.array_equal(korean, draw(folder / "both", prompt=KOREAN, lang="ko"))
    assert not np.array_equal(korean, draw(folder / "both", prompt=KOREAN, lang="en"))
    assert not np.array_equal(korean, draw(folder / "both", prompt="红色圆形"))


def test_pieces_that_stand_for_no_word_are_not_named(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Multilingual, "translate", lambda self, texts, words=(): ["a [unused4] above a star"])
    with caplog.at_level(logging.INFO):
        draw(folder / "both", prompt=KOREAN)
    assert f"'{KOREAN}' is read as 'a ? above a star'" in caplog.text


def test_a_model_without_an_aligner_says_that_it_reads_english_only(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        draw(folder / "english", prompt=KOREAN)
    assert "this model reads English only" in caplog.text
    with pytest.raises(UserError, match="reads English only, not 'ko'"):
        draw(folder / "english", prompt=KOREAN, lang="ko")


def test_adapters_that_were_learned_with_a_word(folder: Path, tmp_path: Path) -> None:
    sizes = {"n_embed": 16, "n_layer": 0, "vocab_size": 1, "max_seq_len": 8, "use_tokenizer": False}
    learned = AdapterBERTEmbedder(adapter_dim=4, post_dim=8, **sizes)  # type: ignore[arg-type]
    learned.save_adapters(tmp_path / "nothing.safetensors")
    for parameter in learned.text_adapters.parameters():
        torch.nn.init.normal_(parameter)
    learned.save_adapters(tmp_path / "something.safetensors")
    for prompt in ("a red circle", KOREAN):
        plain = draw(folder / "both", prompt=prompt)
        untrained = draw(folder / "both", prompt=prompt, adapter_path=str(tmp_path / "nothing.safetensors"))
        assert np.array_equal(plain, untrained)
        trained = draw(folder / "both", prompt=prompt, adapter_path=str(tmp_path / "something.safetensors"))
        assert not np.array_equal(plain, trained)
    with pytest.raises(UserError, match="holds no adapters"):
        draw(folder / "both", prompt=KOREAN, adapter_path=str(folder / "both/aligner.safetensors"))


def test_an_unknown_language_ends_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown language 'fr'; known: en, ko, zh, auto"):
        draw(tmp_path / "nothing", lang="fr")

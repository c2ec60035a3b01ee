"""A model folder that brings its own vocabulary."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from ldm.modules.encoders.local_files import with_local_files
from ldm.util import instantiate_from_config

NODE = {
    "target": "ldm.modules.encoders.modules.BERTEmbedder",
    "params": {"n_embed": 16, "n_layer": 1, "vocab_size": 8, "max_seq_len": 6, "tokenizer": "vocab.txt"},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nred\n")
    return tmp_path


@pytest.mark.parametrize("named", ["vocab.txt", "models/elsewhere/vocab.txt"])
def test_the_vocabulary_beside_the_model_is_found(folder: Path, named: str) -> None:
    config = OmegaConf.create({"model": {"params": {"cond_stage_config": NODE}, "list": [{"tokenizer": named}]}})
    config.model.params.cond_stage_config.params.tokenizer = named
    resolved = with_local_files(config, folder)
    node = resolved["model"]["params"]["cond_stage_config"]
    assert instantiate_from_config(node).tokenize("red").tolist() == [[2, 4, 3, 0, 0, 0]]
    assert resolved["model"]["list"][0]["tokenizer"] == str(folder / "vocab.txt")
    assert config.model.params.cond_stage_config.params.tokenizer == named, "the caller's configuration was changed"


def test_everything_else_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = folder / "other"
    other.mkdir()
    (other / "vocab.txt").write_text("")
    monkeypatch.chdir(folder)
    config = {
        "a": {"tokenizer": "bert-base-uncased"},
        "b": {"tokenizer": "other/vocab.txt"},
        "c": {"tokenizer": str(other / "vocab.txt"), "version": "vocab.txt"},
        "d": {"tokenizer": None},
    }
    assert with_local_files(config, folder / "empty") == config


def test_an_encoder_can_be_copied_and_pickled(folder: Path) -> None:
    model = instantiate_from_config(with_local_files(NODE, folder))
    context = model.encode("red")
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(other.encode("red"), context)

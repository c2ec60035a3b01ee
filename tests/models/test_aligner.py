"""Training an aligner by main.py: its losses, a frozen encoder that reads once, the files that come out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from transformers import RobertaConfig

from ldm.checkpoint import read_state_dict
from ldm.models.aligner import AlignerTraining
from ldm.modules.encoders.multilingual import ForeignReader
from ldm.training import launch
from ldm.util import UserError, find_beside, instantiate_from_config
from scripts.export_aligner import export
from scripts.make_multilingual_encoder import encoder_from, learn_tokenizer
from tests.modules.encoders.multilingual_files import SENTENCES, write_encoder, write_other_kind
from tests.workflows.small_model import write_small_model

PAIRS = """lang,source,en
ko,파란 배경 위의 빨간 원,a red circle on a blue background
zh,红色背景上有一个*,a * on a red background
mixed,blue 배경 위의 red *,a red * on a blue background
ko,빨간 원,a red circle
"""
CIRCLE = {"source": ["파란 배경 위의 빨간 원", "빨간 원"],
          "target": ["a red circle on a blue background", "a red circle"]}  # fmt: skip


def files(folder: Path, **params: Any) -> Path:
    """A YAML to train an aligner for a small model; both of them, an encoder and sentence pairs."""
    ckpt = write_small_model(folder / "model")
    words = (folder / "model/vocab.txt").read_text()
    (folder / "model/vocab.txt").write_text(words.replace("square", "*"))
    (folder / "pairs.csv").write_text(PAIRS, encoding="utf-8")
    write_encoder(folder / "encoder")
    aligner = {"source_width": 16, "target_width": 16, "length": 8, "dim": 16, "depth": 1, "heads": 2}
    dataset = {"target": "ldm.data.sentence_pairs.SentencePairs", "params": {"path": str(folder / "pairs.csv")}}
    config = {
        "model": {
            "base_learning_rate": 1e-2,
            "target": "ldm.models.aligner.AlignerTraining",
            "params": {
                "model_config": str(folder / "model/config.yaml"), "ckpt_path": str(ckpt),
                "encoder": str(folder / "encoder"), "slots": ["*"],
                "aligner_config": {"target": "ldm.modules.encoders.aligner.Aligner", "params": aligner}, **params,
            },
        },
        "data": {
            "target": "main.DataModuleFromConfig",
            "params": {"batch_size": 4, "num_workers": 0, "train": dataset, "validation": dataset},
        },
        "lightning": {"trainer": {"max_steps": 2, "accelerator": "cpu", "enable_progress_bar": False,
                                  "enable_model_summary": False, "log_every_n_steps": 1},
                      "callbacks": {"image_logger": {"params": {"disabled": True}}}},
    }  # fmt: skip
    path = folder / "aligner.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def training(folder: Path, **params: Any) -> AlignerTraining:
    model = instantiate_from_config(OmegaConf.load(files(folder, **params)).model)
    model.on_fit_start()
    return model


@pytest.mark.parametrize("train_encoder", [True, False])
def test_a_run_writes_small_files_that_read_foreign_prompts(tmp_path: Path, train_encoder: bool) -> None:
    path = files(tmp_path, train_encoder=train_encoder, response_weight=0.1)
    launch.main(["-t", "-l", str(tmp_path / "logs"), "-b", str(path), "--scale_lr", "false"])
    (run,) = (tmp_path / "logs").iterdir()
    weights = read_state_dict(run / "checkpoints/last.ckpt")
    assert {key.split(".")[0] for key in weights} == ({"aligner", "encoder"} if train_encoder else {"aligner"})
    made = export(run, tmp_path / "out", "fp32")
    assert len(made) == 1 + train_encoder
    reader = ForeignReader.from_file(made[0])
    states = reader.encoder(["빨간 원"])
    for key, value in reader.aligner.state_dict().items():
        assert torch.equal(value, weights[f"aligner.{key}"])
    found, _ = reader.aligner(states.states, states.mask)
    assert found.shape == (1, 8, 16)
    small = ForeignReader.from_file(export(run, tmp_path / "small", "bytes")[0])
    assert (tmp_path / "small/aligner.safetensors").stat().st_size < made[0].stat().st_size / 2
    about = small.aligner(states.states, states.mask)[0]
    assert not torch.equal(about, found) and torch.allclose(about, found, atol=0.05 * float(found.std()))
    log = (run / "metrics/version_0/metrics.csv").read_text()
    assert all(f"train/{name}" in log for name in ("vectors", "context", "places", "response")) and "val/exact" in log


EVERY = {"source": [line.split(",")[1] for line in PAIRS.splitlines()[1:]],
         "target": [line.split(",")[2] for line in PAIRS.splitlines()[1:]]}  # fmt: skip


def test_losses_in_half_precision_are_those_of_float32(tmp_path: Path) -> None:
    model = training(tmp_path, train_encoder=True)
    torch.manual_seed(0)
    exact = model.losses(EVERY)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        halves = model.losses(EVERY)
    assert {name: part.item() for name, part in halves.items()} == pytest.approx(
        {name: part.item() for name, part in exact.items()}, rel=0.05
    )


def test_it_learns(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = training(tmp_path, train_encoder=True)
    model.learning_rate = 3e-3
    optimizer = model.configure_optimizers()
    torch.manual_seed(0)
    first = model.losses(EVERY)
    for _ in range(400):
        loss = model.total(model.losses(EVERY))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    last = model.losses(EVERY)
    assert all(last[name] < 0.1 * first[name] for name in first), (first, last)
    assert model.exact(EVERY) == 1


def test_a_perfect_aligner_has_no_loss_and_the_response_notices_a_wrong_one(tmp_path: Path) -> None:
    model = training(tmp_path, train_encoder=True, response_weight=1.0)
    english = model.frozen.english
    wanted = english.token_embedding(english.tokenize(CIRCLE["target"]))
    model.aligner.forward = lambda states, mask: (wanted, torch.zeros(2, states.shape[1], 8))
    assert all(part < 1e-10 for part in model.losses(CIRCLE).values())
    assert model.exact(CIRCLE) == 1
    model.aligner.forward = lambda states, mask: (wanted.flip(0), torch.zeros(2, states.shape[1], 8))
    parts = model.losses(CIRCLE)
    assert parts["response"] == pytest.approx(1.0, abs=1e-4), "the spread is that between the two sentences"
    assert parts["context"] == pytest.approx(4.0, abs=1e-3) and parts["vectors"] > 0.1
    assert model.exact(CIRCLE) == 0


def test_the_unets_response_reaches_the_aligner(tmp_path: Path) -> None:
    model = training(tmp_path, train_encoder=False, response_weight=1.0)
    model.losses(CIRCLE)["response"].backward()
    assert all(p.grad is not None for p in model.aligner.to_vector.parameters())
    assert all(p.grad is None for p in model.frozen.diffusion.parameters())  # type: ignore[union-attr]


def test_a_frozen_encoder_reads_each_sentence_once(tmp_path: Path) -> None:
    model = training(tmp_path)
    calls: list[int] = []
    model.cached.encoder.register_forward_hook(lambda module, args, output: calls.append(len(args[0])))
    first = model.read(CIRCLE["source"])
    again = model.read([*CIRCLE["source"], "새 원", "새 원"])
    assert calls == [2, 1]
    assert torch.equal(first.states[1, first.mask[1]], again.states[1, again.mask[1]])
    fresh = model.cached.encoder(CIRCLE["source"], ["*"])
    torch.testing.assert_close(first.states, fresh.states, atol=2e-3, rtol=2e-3)  # kept in half precision
    assert torch.equal(first.mask, fresh.mask)
    assert not [name for name, _ in model.named_parameters() if not name.startswith("aligner.")]


def test_only_the_text_encoder_is_opened_where_the_response_is_not_asked_for(tmp_path: Path) -> None:
    assert training(tmp_path).frozen.diffusion is None


def test_sizes_that_do_not_fit_and_runs_that_are_none(tmp_path: Path) -> None:
    path = files(tmp_path)
    config = OmegaConf.load(path)
    config.model.params.aligner_config.params.length = 9
    with pytest.raises(UserError, match="made for a text encoder of 9 tokens of width 16; this model's has 8"):
        instantiate_from_config(config.model)
    with pytest.raises(UserError, match="is no run folder"):
        export(tmp_path, tmp_path / "out")


def test_paths_beside_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").touch()
    document = OmegaConf.create({"a": {"here": "vocab.txt", "hub": "some/encoder", "none": None}})
    for key in ("a.here", "a.hub", "a.none", "b.c"):
        find_beside(document, key, tmp_path / "elsewhere", tmp_path)
    assert document == {"a": {"here": str(tmp_path / "vocab.txt"), "hub": "some/encoder", "none": None}}


def test_it_may_begin_with_another_aligner_and_its_encoder(tmp_path: Path) -> None:
    path = files(tmp_path, train_encoder=True)
    launch.main(["-t", "-l", str(tmp_path / "logs"), "-b", str(path), "--scale_lr", "false"])
    (run,) = (tmp_path / "logs").iterdir()
    aligner, _ = export(run, tmp_path / "out", "fp32")
    old = ForeignReader.from_file(aligner)
    more = learn_tokenizer([*SENTENCES, "노란 세모와 파란 별"], 140)
    encoder = encoder_from(tmp_path / "out/multilingual", more)
    kept = set(more.get_vocab()) & set(old.encoder.tokenizer.get_vocab())
    assert set(more.get_vocab()) - kept and len(kept) > 30
    before, after = old.encoder.model.get_input_embeddings().weight, encoder.get_input_embeddings().weight
    for piece in kept:
        assert torch.equal(before[old.encoder.tokenizer.get_vocab()[piece]], after[more.get_vocab()[piece]]), piece
    assert bool(torch.isfinite(after).all())
    more.save_pretrained(tmp_path / "more")
    encoder.save_pretrained(tmp_path / "more")
    (tmp_path / "again").mkdir()
    begun = training(tmp_path / "again", train_encoder=True, start=str(aligner), encoder=str(tmp_path / "more"))
    for key, value in old.aligner.state_dict().items():
        assert torch.equal(value, begun.aligner.state_dict()[key]), key
    with pytest.raises(UserError, match="is no folder of an encoder"):
        encoder_from(tmp_path / "model", more)
    write_other_kind(tmp_path / "roberta", RobertaConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
    with pytest.raises(UserError, match="holds no BERT"):
        encoder_from(tmp_path / "roberta", more)

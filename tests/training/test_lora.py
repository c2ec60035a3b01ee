"""Learning a LoRA by main.py: its files, what changes and what does not, resuming, beside a word."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf
from PIL import Image

from ldm.additions import learning
from ldm.additions.base import applied
from ldm.additions.lora.lora import Lora
from ldm.checkpoint import read_embedding, read_file, read_metadata, read_state_dict, save_state_dict
from ldm.modules.encoders.modules import BERTEmbedder
from ldm.training.config import warn_of_nothing_to_hold
from ldm.training.launch import main
from ldm.util import ConfigError, instantiate_from_config
from tests.models.small_words import small_model, small_node

STEPS = 4
LORA = {
    "target": "ldm.additions.lora.trained.TrainedLora",
    "params": {"rank": 2, "layers": "kohya", "text_layers": "kohya", "text_rate": 0.5, "dropout": 0.1},
}
WORDS = {
    "target": "ldm.modules.embedding_manager.EmbeddingManager",
    "params": {"placeholder_strings": ["*"], "initializer_words": ["red"]},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model's weights, configurations and pictures."""
    folder = tmp_path_factory.mktemp("lora")
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(folder / "pictures" / f"{i}.png")
    node = small_node(folder, lora_config=LORA)
    config: dict[str, Any] = {
        "model": {"base_learning_rate": 1e-2, **node},
        "data": {
            "target": "main.DataModuleFromConfig",
            "params": {
                "batch_size": 2, "num_workers": 0, "cache_latents": True,
                "train": {"target": "ldm.data.personalized.PersonalizedBase",
                          "params": {"size": 32, "repeats": 4, "templates": ["a {}", "{} on a blue background"]}},
            },
        },
        "lightning": {
            "callbacks": {"embeddings": {"params": {"every_n_steps": 2}},
                          "image_logger": {"params": {"disabled": True}}},
            "trainer": {"max_steps": STEPS, "log_every_n_steps": 1, "accelerator": "cpu", "gradient_clip_val": 1.0,
                        "enable_progress_bar": False, "enable_model_summary": False},
        },
    }  # fmt: skip
    (folder / "lora.yaml").write_text(yaml.safe_dump(config))
    both = copy.deepcopy(config)
    both["model"]["params"]["personalization_config"] = WORDS
    both["model"]["params"]["lora_config"]["params"]["format"] = "peft"
    (folder / "both.yaml").write_text(yaml.safe_dump(both))
    weights = {k: v for k, v in small_model(folder).state_dict().items() if not k.startswith(("lora", "embedding"))}
    save_state_dict(weights, folder / "base.safetensors")
    return folder


def run(place: Path, logs: Path, name: str = "lora", word: str = "circle", *more: str) -> Path:
    main([
        "--base", str(place / f"{name}.yaml"), "-t", "--actual_resume", str(place / "base.safetensors"),
        "--data_root", str(place / "pictures"), "--placeholder_string", word, "-l", str(logs), "--name", name,
        "--scale_lr", "false", *more,
    ])  # fmt: skip
    (found,) = logs.glob(f"*_{name}")
    return found / "checkpoints"


@pytest.fixture(scope="module")
def whole(place: Path) -> Path:
    return run(place, place / "whole")


def test_what_is_to_be_learned_is_not_missed_in_the_weights_to_start_from(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = str(place / "base.safetensors")
    node = small_node(place, lora_config=LORA, personalization_config=WORDS, ckpt_path=weights)
    instantiate_from_config(node)
    assert "missing" not in caplog.text
    whole = read_state_dict(weights)
    part = {key: value for key, value in whole.items() if not key.startswith("first_stage_model.enc")}
    save_state_dict(part, place / "part.safetensors")
    instantiate_from_config({**node, "params": {**node["params"], "ckpt_path": str(place / "part.safetensors")}})
    assert "missing, first: first_stage_model.enc" in caplog.text


def base_model(place: Path) -> Any:
    return instantiate_from_config(small_node(place, ckpt_path=str(place / "base.safetensors"))).eval()


def test_files_of_a_run(place: Path, whole: Path) -> None:
    names = {path.name for path in whole.iterdir()}
    assert {"lora_gs-2.safetensors", "lora.safetensors", "last.ckpt"} <= names and "embeddings.pt" not in names
    about = read_metadata(whole / "lora.safetensors")
    assert about["ss_steps"] == str(STEPS) and about["ss_sd_model_name"] == f"{place.name}/base.safetensors"
    assert (about["ss_network_dim"], about["modelspec.prediction_type"]) == ("2", "epsilon")
    lora = Lora.read(whole / "lora.safetensors", base_model(place))
    assert {module.key.network for module in lora.modules} == {"unet", "text_encoder"}
    assert all(module.parts["lora_up"].any() for module in lora.modules)
    saved = set(read_file(whole / "last.ckpt")["state_dict"])
    assert saved and all(key.startswith("lora.factors.") for key in saved)


@torch.no_grad()
def test_the_file_does_on_the_base_model_what_was_learned(place: Path, whole: Path) -> None:
    x, t = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([300])
    node = small_node(place, lora_config=LORA)
    trained = instantiate_from_config(node)
    trained.load_state_dict(read_state_dict(place / "base.safetensors"), strict=False)
    trained.load_state_dict(read_file(whole / "last.ckpt")["state_dict"], strict=False)
    trained.eval()
    learned = trained.apply_model(x, t, trained.condition(["a circle"]))
    base = base_model(place)
    plain = base.apply_model(x, t, base.condition(["a circle"]))
    with applied(base, [Lora.read(whole / "lora.safetensors", base)]):
        torch.testing.assert_close(base.apply_model(x, t, base.condition(["a circle"])), learned, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(plain, learned, atol=1e-3)


def test_a_run_that_goes_on_is_the_whole_run(
    place: Path, whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    half = run(place, tmp_path, "lora", "circle", "--max_steps", "2")
    assert "keys missing" not in caplog.text, "what is to be learned is in no weights to start from"
    proposed = [record.getMessage() for record in caplog.records if record.getMessage().startswith("next: ")][-1]
    assert "--prompt 'a circle' --lora " in proposed, "as the pictures are called in training"
    main(["-t", "-r", str(half.parent), "--max_steps", str(STEPS)])
    one, other = (read_state_dict(folder / "lora.safetensors") for folder in (whole, half))
    assert one.keys() == other.keys()
    for key, value in one.items():
        torch.testing.assert_close(other[key], value, rtol=0, atol=1e-7)


def test_a_word_and_a_lora_learn_together(place: Path, tmp_path: Path) -> None:
    files = run(place, tmp_path, "both", "*")
    word = read_embedding(files / "embeddings.safetensors")
    assert not torch.equal(word.vectors["*"], word.initial["*"])
    about = read_metadata(files / "lora.safetensors")
    assert about["modelspec.trigger_phrase"] == "*" and "lora_adapter_metadata" in about
    assert len(Lora.read(files / "lora.safetensors", base_model(place)).modules) > 20


def test_a_word_first_then_a_lora(place: Path, tmp_path: Path) -> None:
    """In each stage only its own learn; what the run does is told by the step, in a run that goes on as well."""
    (tmp_path / "s.yaml").write_text("stages: [{learn: embeddings, steps: 2}, {learn: [lora], steps: 2}]")
    files = run(place, tmp_path, "both", "*", "--base", str(tmp_path / "s.yaml"), "--max_steps", "2")
    first = read_file(files / "last.ckpt")["state_dict"]
    word = "embedding_manager.string_to_param_dict.*"
    assert not torch.equal(first[word], first["embedding_manager.initial_embeddings.*"])
    ups = [key for key in first if key.endswith("lora_up")]
    assert ups and not any(first[key].any() for key in ups)
    main(["-t", "-r", str(files.parent), "--max_steps", "4"])
    last = read_file(files / "last.ckpt")["state_dict"]
    assert torch.equal(last[word], first[word]) and all(last[key].any() for key in ups)
    assert {"embeddings.safetensors", "lora.safetensors"} <= {path.name for path in files.iterdir()}


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("stages: []", "'stages' is empty"),
        ("stages: [{learn: lora}]", "a stage says what learns and for how long"),
        ("stages: [{learn: lora, steps: 0}]", "steps >= 1"),
        ("stages: [{learn: attic, steps: 1}]", "what the model learns is embeddings, lora"),
        ("stages: 3", "'stages' must be a list"),
    ],
)
def test_stages_that_are_none(place: Path, tmp_path: Path, stages: str, message: str) -> None:
    (tmp_path / "s.yaml").write_text(stages)
    with pytest.raises(ConfigError, match=message):
        run(place, tmp_path / "logs", "both", "*", "--base", str(tmp_path / "s.yaml"))


def test_a_wrong_value_is_said_before_anything_is_written(place: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no layer of the unet is called 'attic'"):
        run(place, tmp_path, "lora", "circle", "model.params.lora_config.params.layers=attic")
    assert not list(tmp_path.iterdir())


def test_prompts_are_encoded_once_where_the_encoder_stays(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    encode = BERTEmbedder.encode

    def counted(self: BERTEmbedder, text: list[str]) -> Any:
        asked.append(len(text))
        return encode(self, text)

    monkeypatch.setattr(BERTEmbedder, "encode", counted)
    frozen = ["model.params.lora_config.params.text_layers=none", "lightning.trainer.max_steps=8",
              "lightning.trainer.precision=64-true"]  # fmt: skip
    files = [run(place, tmp_path / name, "lora", "circle", *frozen, f"lightning.cache_text={name}")
             for name in ("false", "true")]  # fmt: skip
    plain, kept = (read_file(folder / "lora.safetensors") for folder in files)
    assert asked[:8] == [2] * 8 and sum(asked[8:]) == 2, "two templates, so two prompts"
    for key, value in plain.items():
        torch.testing.assert_close(kept[key], value, rtol=1e-3, atol=1e-4)
    with pytest.raises(ConfigError, match="cache_text needs a text encoder that stays as it is"):
        run(place, tmp_path / "text", "lora", "circle", "lightning.cache_text=true")


def test_what_a_step_does_not_need_all_the_time_lies_in_a_file(place: Path, tmp_path: Path) -> None:
    """Autoencoder and text encoder, with a LoRA on it and pictures drawn in between: the same bits."""
    shown = ["lightning.callbacks.image_logger.params.disabled=false",
             "lightning.callbacks.image_logger.params.batch_frequency=2"]  # fmt: skip
    files = [run(place, tmp_path / name, "lora", "circle", *shown, f"lightning.offload={name}")
             for name in ("false", "true")]  # fmt: skip
    plain, laid = (read_file(folder / "lora.safetensors") for folder in files)
    assert all(torch.equal(laid[key], value) for key, value in plain.items())
    plain, laid = (read_file(folder / "last.ckpt")["state_dict"] for folder in files)
    assert plain.keys() == laid.keys() and all(torch.equal(laid[key], value) for key, value in plain.items())
    drawn = [sorted(folder.parent.rglob("images/**/*.png")) for folder in files]
    assert drawn[0] and [p.read_bytes() for p in drawn[0]] == [p.read_bytes() for p in drawn[1]]


def test_it_is_said_where_nothing_holds_a_lora(place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(place, tmp_path, "lora", "circle", "model.params.reg_target=base", "lightning.trainer.max_steps=1")
    assert "there is no 'data.params.reg': it learns as without" in caplog.text
    caplog.clear()
    warn_of_nothing_to_hold(OmegaConf.create({"model": {"params": {"reg_target": "base"}},
                                              "data": {"params": {"reg": {"target": "some"}}}}))  # fmt: skip
    warn_of_nothing_to_hold(OmegaConf.create({"model": {"params": {"reg_target": "pictures"}}}))
    assert not caplog.text


def test_what_is_frozen_is_held_in_16_bits_where_they_are_not_computed_with(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(learning, "computes_in", lambda dtype: False)
    held = ["lightning.frozen=bf16"]
    with caplog.at_level(logging.INFO):
        straight = run(place, tmp_path / "straight", "lora", "circle", *held)
    assert "what is frozen is held in it and computed in float32" in caplog.text
    stopped = run(place, tmp_path / "stopped", "lora", "circle", *held, "--max_steps", "2")
    main(["-t", "-r", str(stopped.parent), "--max_steps", str(STEPS)])
    learned, again = (read_file(folder / "lora.safetensors") for folder in (straight, stopped))
    assert all(torch.equal(again[key], value) for key, value in learned.items())

    model = base_model(place)
    for name, layer in model.named_modules():
        if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d)) and not name.startswith("first_stage_model"):
            layer.weight.data = layer.weight.data.bfloat16().float()
    save_state_dict(model.state_dict(), tmp_path / "rounded.safetensors")
    rounded = run(place, tmp_path / "rounded", "lora", "circle",
                  "--actual_resume", str(tmp_path / "rounded.safetensors"))  # fmt: skip
    for key, value in read_file(rounded / "lora.safetensors").items():
        torch.testing.assert_close(learned[key], value, rtol=1e-3, atol=1e-4)
    with pytest.raises(ConfigError, match=r"lightning\.frozen is 'int8'"):
        run(place, tmp_path / "int8", "lora", "circle", "lightning.frozen=int8")

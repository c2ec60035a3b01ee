"""Learning a word by main.py: its files, what changes and what does not, resuming, bad input."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from ldm.additions import learning
from ldm.checkpoint import read_file, read_state_dict, save_state_dict
from ldm.checkpoint.embeddings import read_embedding
from ldm.run_metrics import read_metric, running_mean
from ldm.training.launch import main
from ldm.util import UserError
from tests import forked
from tests.models.small_words import small_model, small_node

STEPS = 6
MANAGER = "ldm.modules.embedding_manager.EmbeddingManager"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model's weights, a configuration and pictures."""
    folder = tmp_path_factory.mktemp("words")
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(0, 255, (36, 32, 3), np.uint8)).save(folder / "pictures" / f"{i}.png")
    params = {"placeholder_strings": ["*"], "initializer_words": ["red"], "num_vectors_per_token": 2}
    node = small_node(folder, personalization_config={"target": MANAGER, "params": params})
    config: dict[str, Any] = {
        "model": {"base_learning_rate": 5e-3, **node},
        "data": {
            "target": "main.DataModuleFromConfig",
            "params": {
                "batch_size": 2, "num_workers": 0, "cache_latents": True,
                "train": {"target": "ldm.data.personalized.PersonalizedBase",
                          "params": {"size": 32, "repeats": 4, "templates": ["a {}", "{} on a blue background"]}},
            },
        },
        "lightning": {
            "modelcheckpoint": {"params": {"every_n_train_steps": 2}},
            "callbacks": {"embeddings": {"params": {"every_n_steps": 4}},
                          "image_logger": {"params": {"disabled": True}}},
            "trainer": {"max_steps": STEPS, "log_every_n_steps": 1, "accelerator": "cpu",
                        "enable_progress_bar": False, "enable_model_summary": False},
        },
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    weights = {k: v for k, v in small_model(folder).state_dict().items() if not k.startswith("embedding_manager")}
    save_state_dict(weights, folder / "base.safetensors")
    return folder


def arguments(place: Path, logs: Path) -> list[str]:
    return [
        "--base", str(place / "config.yaml"), "-t", "--actual_resume", str(place / "base.safetensors"), "--gpus", "0,",
        "--data_root", str(place / "pictures"), "--init_word", "toy", "-l", str(logs), "--name", "word",
    ]  # fmt: skip


def run_folder(logs: Path) -> Path:
    (found,) = logs.glob("*_word")
    return found


def learned(logs: Path) -> torch.Tensor:
    return read_embedding(run_folder(logs) / "checkpoints" / "embeddings.pt").vectors["*"]


@pytest.fixture(scope="module")
def whole(place: Path) -> Path:
    """A run that was never stopped."""
    main(arguments(place, place / "whole"))
    return place / "whole"


def test_files_of_a_run(place: Path, whole: Path) -> None:
    run = run_folder(whole)
    names = {path.name for path in (run / "checkpoints").iterdir()}
    assert {"embeddings_gs-4.pt", "embeddings.pt", "embeddings.safetensors", "last.ckpt"} <= names
    assert list(run.glob("metrics/version_0/loss.png"))
    written = read_embedding(run / "checkpoints" / "embeddings.safetensors")
    about = {key: written.metadata[key] for key in ("steps", "base_model", "init_words", "family")}
    assert about == {
        "steps": str(STEPS), "base_model": f"{place.name}/base.safetensors", "init_words": "*: toy", "family": "bert",
    }  # fmt: skip
    base = read_state_dict(place / "base.safetensors")["cond_stage_model.transformer.token_emb.weight"]
    words = (place / "vocab.txt").read_text().splitlines()
    start = torch.stack([base[words.index("t")], base[words.index("##oy")]])
    assert torch.equal(written.initial["*"], start), "from the weights of the file, not of the constructor"
    assert not torch.allclose(written.vectors["*"], start, atol=1e-3)
    assert read_embedding(run / "checkpoints" / "embeddings_gs-4.pt").metadata["steps"] == "4"


def test_captions_that_are_cut_are_said_once(place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sentence = "a red circle on a blue background and a {}"
    main([*arguments(place, tmp_path), "--max_steps", "3", f"data.params.train.params.templates=['{sentence}']"])
    said = [record.getMessage() for record in caplog.records if "captions are longer" in record.getMessage()]
    cut = sentence.format("*")
    assert said == [
        "captions are longer than the 6 tokens that the text encoder reads, and their ends are not learned; "
        f"the first such is '{cut}'"
    ]


def test_a_checkpoint_holds_the_words_alone(whole: Path) -> None:
    path = run_folder(whole) / "checkpoints" / "last.ckpt"
    checkpoint = read_file(path)
    assert set(checkpoint["state_dict"]) == {
        "embedding_manager.string_to_param_dict.*", "embedding_manager.initial_embeddings.*",
    }  # fmt: skip
    (state,) = checkpoint["optimizer_states"]
    assert [tuple(entry["exp_avg"].shape) for entry in state["state"].values()] == [(2, 16)]
    assert path.stat().st_size < 50_000


def wait_for(pattern: str, folder: Path, process: forked.Forked) -> None:
    deadline = time.monotonic() + 300
    while not list(folder.glob(pattern)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the run did not get that far"
        time.sleep(0.02)


@pytest.mark.slow
def test_kill_9_and_resume_gives_the_same_embedding(place: Path, whole: Path, tmp_path: Path) -> None:
    process = forked.start("main.py", *arguments(place, tmp_path), "--max_steps", "100000")
    wait_for("*_word/checkpoints/last.ckpt", tmp_path, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    run = run_folder(tmp_path)
    reached = read_file(run / "checkpoints" / "last.ckpt")["global_step"]
    main(["-t", "-r", str(run), "--max_steps", str(reached + 3)])

    straight = tmp_path / "straight"
    main([*arguments(place, straight), "--max_steps", str(reached + 3)])
    torch.testing.assert_close(learned(tmp_path), learned(straight), rtol=0, atol=1e-6)
    assert not torch.allclose(learned(tmp_path), read_embedding(run / "checkpoints" / "embeddings.pt").initial["*"])


def test_a_stopped_run_continues_exactly(place: Path, whole: Path, tmp_path: Path) -> None:
    main([*arguments(place, tmp_path), "--max_steps", "2"])
    main(["-t", "-r", str(run_folder(tmp_path)), "--max_steps", str(STEPS)])
    assert torch.equal(learned(tmp_path), learned(whole))


def test_a_folder_of_what_is_around_the_word_counts_in_every_second_step(
    place: Path, whole: Path, tmp_path: Path
) -> None:
    """The YAML of docs/textual-inversion.md."""
    folder = tmp_path / "around"
    folder.mkdir()
    Image.new("RGB", (32, 32), "blue").save(folder / "a.png")
    Image.fromarray(np.repeat([0, 255], 16).astype(np.uint8)[:, None].repeat(32, 1)).save(folder / "a_mask.png")
    (folder / "a.txt").write_text("a * on a blue background")
    params = f"{{data_root: {folder}, size: 32, placeholder_token: '*', captions: true}}"
    main([*arguments(place, tmp_path), "data.params.cache_latents=false", "model.params.prior_every=2",
          f"data.params.reg={{target: ldm.data.personalized.PersonalizedBase, params: {params}}}"])  # fmt: skip
    _, losses = read_metric(list(run_folder(tmp_path).glob("metrics/*/metrics.csv")), "train/loss_reg")
    assert min(losses) > 0 and list(losses[0::2]) == list(losses[1::2]), "between them the table repeats the last one"
    assert len(set(losses)) == STEPS / 2
    assert not torch.equal(learned(tmp_path), learned(whole))


def test_frozen_parts_in_half_precision(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def keep(self: Any) -> Any:
        seen.update({name: p.dtype for name, p in self.named_parameters()})
        return original(self)

    from ldm.models.diffusion.ddpm import LatentDiffusion

    original = LatentDiffusion.on_train_start
    monkeypatch.setattr(LatentDiffusion, "on_train_start", keep)
    monkeypatch.setattr(learning, "computes_in", lambda dtype: True)  # what does not, holds weights so
    main([*arguments(place, tmp_path), "--max_steps", "1", "lightning.frozen=bf16"])
    kinds = {name.split(".")[0]: dtype for name, dtype in seen.items()}
    assert kinds == {
        "model": torch.bfloat16, "cond_stage_model": torch.bfloat16, "first_stage_model": torch.float32,
        "embedding_manager": torch.float32,
    }  # fmt: skip
    assert learned(tmp_path).dtype is torch.float32
    with pytest.raises(UserError, match=r"lightning\.frozen is 'int8'"):
        main([*arguments(place, tmp_path / "b"), "lightning.frozen=int8"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--placeholder_string", " "], "at least one letter or sign"),
        (["--init_word", "zebra"], "'zebra' is not in the vocabulary"),
        (["--data_root", "nowhere"], "no folder 'nowhere'"),
        (["data.params.train.params.placeholder_token=dog"], r"say 'dog', but what learns is '\*'"),
        (["data.params.train.params.templates=[a photo]"], "'a photo' must have the placeholder's place"),
        (["--embedding_manager_ckpt", "nothing.pt"], "nothing.pt"),
    ],
)
def test_bad_input(place: Path, tmp_path: Path, changes: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        main([*arguments(place, tmp_path), *changes])
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("*_word/checkpoints/*"))


def test_placeholder_and_file_to_go_on_with(place: Path, whole: Path, tmp_path: Path) -> None:
    start = run_folder(whole) / "checkpoints" / "embeddings.pt"
    main([*arguments(place, tmp_path), "--max_steps", "1", "--embedding_manager_ckpt", str(start)])
    moved = (learned(tmp_path) - learned(whole)).abs().max()
    assert 0 < moved < 0.05, "one step from where the file was"
    main([*arguments(place, tmp_path / "at"), "--max_steps", "1", "--placeholder_string", "@"])
    assert list(read_embedding(run_folder(tmp_path / "at") / "checkpoints" / "embeddings.pt").vectors) == ["@"]


def test_an_early_stop(place: Path, tmp_path: Path) -> None:
    stop = "lightning.callbacks.stop"
    pictures = "data.params.validation"
    main([
        *arguments(place, tmp_path), f"{stop}.target=pytorch_lightning.callbacks.EarlyStopping", "--max_steps", "50",
        f"{stop}.params.monitor=val/loss_simple", f"{stop}.params.patience=1", f"{stop}.params.min_delta=100",
        f"{pictures}.target=ldm.data.personalized.PersonalizedBase", f"{pictures}.params.size=32",
        f"{pictures}.params.set=val",
    ])  # fmt: skip
    steps = read_embedding(run_folder(tmp_path) / "checkpoints" / "embeddings.pt").metadata["steps"]
    assert steps == "12", "two epochs of six steps: the second one was no better by 100"


def test_the_loss_curve_joins_the_starts_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("step,train/loss_simple_step,other\n0,1.0,\n1,,5\n1,2.0,\n")
    (tmp_path / "b.csv").write_text("step,train/loss_simple\n1,4.0\n2,6.0\n")
    steps, values = read_metric([tmp_path / "a.csv", tmp_path / "b.csv"], "train/loss_simple")
    assert steps.tolist() == [0, 1, 2] and values.tolist() == [1, 4, 6]
    assert running_mean(values, 2).tolist() == [1, 2.5, 5]

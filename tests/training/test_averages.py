"""``lightning.additions_ema``: files and previews are of the average of what learns, and the run goes as without it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from ldm.additions.averages import Averages
from ldm.checkpoint import read_embedding, read_file, read_metadata, read_state_dict
from ldm.training.averages import AdditionAverages, averaged
from ldm.training.image_logger import ImageLogger
from ldm.training.launch import main
from ldm.util import ConfigError
from tests.training import test_lora
from tests.training.test_lora import STEPS, run

DECAY = 0.25
KEPT = "lightning.modelcheckpoint.params"
EVERY_STEP = (f"{KEPT}.every_n_train_steps=1", f"{KEPT}.save_top_k=-1")
place = test_lora.place  # the fixture


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def ups(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The UNet's second factors of a checkpoint, by their names in kohya's files."""
    start = "lora.factors.unet-"
    return {
        f"lora_unet_{key.removeprefix(start)}.weight": value
        for key, value in weights.items() if key.startswith(start) and key.endswith("lora_up")
    }  # fmt: skip


def test_the_file_is_the_average_of_all_steps(place: Path, tmp_path: Path) -> None:
    files = run(place, tmp_path, "lora", "circle", f"lightning.additions_ema={DECAY}", *EVERY_STEP)
    steps = [ups(read_file(next(files.glob(f"*step={n:09}.ckpt")))["state_dict"]) for n in range(1, STEPS + 1)]
    whole = read_state_dict(files / "lora.safetensors")
    assert steps[0]
    for name, first in steps[0].items():
        average = first
        for n, step in enumerate(steps[1:], 2):
            decay = min(DECAY, (1 + n) / (10 + n))
            average = decay * average + (1 - decay) * step[name]
        torch.testing.assert_close(whole[name], average, rtol=1e-5, atol=1e-7)
        assert not torch.equal(whole[name], steps[-1][name])
    assert read_metadata(files / "lora.safetensors")["ema_decay"] == str(DECAY)

    (checkpoint,) = files.glob("*step=000000002.ckpt")
    (files / "lora.safetensors").unlink()
    main(["-t", "-r", str(checkpoint)])
    again = read_state_dict(files / "lora.safetensors")
    assert again.keys() == whole.keys() and all(torch.equal(again[key], whole[key]) for key in whole)

    plain = run(place, tmp_path / "plain")
    last = read_file(plain / "last.ckpt")["state_dict"]
    assert all(torch.equal(value, steps[-1][name]) for name, value in ups(last).items()), "the run itself is the same"
    assert "ema_decay" not in read_metadata(plain / "lora.safetensors")


def test_what_a_stage_leaves_out_is_as_it_is(place: Path, tmp_path: Path) -> None:
    """The LoRA learns beside the word itself, not beside its average."""
    (tmp_path / "s.yaml").write_text("stages: [{learn: embeddings, steps: 2}, {learn: [lora], steps: 2}]")
    files = run(place, tmp_path, "both", "*", "--base", str(tmp_path / "s.yaml"), "lightning.additions_ema=0.9")
    last = read_file(files / "last.ckpt")["state_dict"]
    word = last["embedding_manager.string_to_param_dict.*"]
    assert torch.equal(read_embedding(files / "embeddings.safetensors").vectors["*"], word)
    assert "ema_decay" not in read_metadata(files / "embeddings.safetensors"), "it is no average"
    assert read_metadata(files / "lora.safetensors")["ema_decay"] == "0.9"
    assert not torch.equal(read_embedding(files / "embeddings_gs-2.pt").vectors["*"], word), "then it was learning"
    written = read_state_dict(files / "lora.safetensors")
    pairs = [(value, written[key]) for key, value in written.items() if "lora_B" in key]
    assert pairs and all(value.any() for value, _ in pairs), "the LoRA's own begins with its stage"


class Pictured:
    """A model of one learned number that draws it."""

    def __init__(self) -> None:
        self.value = torch.nn.Parameter(torch.zeros(1))
        addition = SimpleNamespace(file_name="tone", learned=lambda: [self.value])
        self.learning = SimpleNamespace(additions=[addition])
        self.drawn: list[float] = []

    def modules(self) -> list[Any]:
        return []

    def eval(self) -> None: ...

    def log_images(self, batch: Any, split: str) -> dict[str, Any]:
        self.drawn.append(self.value.item())
        return {}


def stepped(averages: AdditionAverages, model: Any, values: tuple[float, ...]) -> float:
    """The average after steps that leave these values."""
    trainer: Any = SimpleNamespace(
        callbacks=[averages], lightning_module=model, fit_loop=SimpleNamespace(_should_accumulate=lambda: False)
    )
    averages.on_fit_start(trainer, model)
    for value in values:
        model.value.data.fill_(value)
        averages.on_train_batch_end(trainer, model, None, None, 0)
    with averaged(trainer, model):
        return float(model.value.item())


def test_a_run_that_goes_on_has_the_decay_that_is_asked_for_now() -> None:
    model, first = cast(Any, Pictured()), AdditionAverages(0.1)
    before, state = stepped(first, model, (1.0, 2.0)), first.state_dict()
    ends = []
    for decay in (0.1, 0.01):
        averages = AdditionAverages(decay)
        averages.load_state_dict(copy.deepcopy(state))
        ends.append(stepped(averages, model, (5.0,)))
        assert ends[-1] == pytest.approx(decay * before + (1 - decay) * 5)
    assert ends[0] == stepped(AdditionAverages(0.1), model, (1.0, 2.0, 5.0)), "bit for bit as without a stop"


def test_what_has_nothing_to_learn_has_no_average() -> None:
    addition: Any = SimpleNamespace(file_name="embeddings", learned=lambda: [])
    averages = Averages(0.9)
    averages.update([addition])
    assert not averages.has(addition) and not averages.state_dict()


def test_previews_are_of_the_average() -> None:
    model, averages = cast(Any, Pictured()), AdditionAverages(0.2)
    trainer: Any = SimpleNamespace(
        callbacks=[averages], lightning_module=model, global_step=3, is_global_zero=True,
        fit_loop=SimpleNamespace(_should_accumulate=lambda: False),
    )  # fmt: skip
    for number in (1.0, 2.0):
        model.value.data.fill_(number)
        averages.on_train_batch_end(trainer, model, None, None, 0)
    ImageLogger(1, 1).log_images(trainer, model, None, 0, "train", due=True)
    assert model.drawn == [pytest.approx(0.2 * 1 + 0.8 * 2)] and model.value.item() == 2.0
    with averaged(trainer, model):
        assert model.value.item() == model.drawn[0]


@pytest.mark.parametrize("decay", ["1.0", "0", "much", "true", "nan"])
def test_a_wrong_decay_is_said_before_anything_is_learned(place: Path, tmp_path: Path, decay: str) -> None:
    with pytest.raises(ConfigError, match=r"lightning.additions_ema is .* it must be between 0 and 1, as in 0.99"):
        run(place, tmp_path, "lora", "circle", f"lightning.additions_ema={decay}")


def test_where_nothing_is_learned_on_top() -> None:
    with pytest.raises(ConfigError, match="of which this model learns none"):
        AdditionAverages(0.9).on_fit_start(cast(Any, None), cast(Any, torch.nn.Linear(1, 1)))

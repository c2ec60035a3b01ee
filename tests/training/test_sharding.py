"""A network in parts: two processes learn what two with DDP learn, go on exactly, and write a file like any other."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.distributed.tensor import DTensor

from ldm.checkpoint import read_file, read_state_dict
from ldm.runs import LAST
from ldm.training import launch
from ldm.util import ConfigError
from ldm.workflows.studio import open_studio
from tests.training.test_learning_sdxl import LORA, configuration
from tests.training.two_processes import both, torchrun
from tests.workflows.small_xl import write_small_xl
from tests.workflows.test_sdxl import differs, made

NETWORK = "model.diffusion_model."
STEPS, MORE = 2, 3  # before a run is stopped, and at its end


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small Stable Diffusion XL, pictures, and YAMLs that train all of its UNet, or a LoRA."""
    folder = tmp_path_factory.mktemp("parts")
    write_small_xl(folder)
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(folder / "pictures" / f"{i}.png")
    configuration(folder, "whole", unfreeze_model=True)
    configuration(folder, "lora", lora_config=LORA)
    return folder


def arguments(place: Path, name: str, strategy: str, steps: int, yaml: str = "whole") -> list[str]:
    return [
        "--base", str(place / f"{yaml}.yaml"), "-t", "--actual_resume", str(place / "model.safetensors"),
        "--data_root", str(place / "pictures"), "-l", str(place / "logs"), "--name", name, "--scale_lr", "false",
        "--devices", "2", "--strategy", strategy, "--max_steps", str(steps), "model.base_learning_rate=1e-3",
    ]  # fmt: skip


def last(place: Path, name: str) -> Path:
    (path,) = (place / "logs").glob(f"*_{name}/{LAST[0]}")
    return path


def train(place: Path) -> dict[str, Any]:
    """What each process does: a run in parts, stopped and gone on with, and one whose processes have all weights."""
    held: dict[str, Any] = {}
    fit = launch.fit

    def told(trainer: Any, model: Any, *others: Any) -> None:
        fit(trainer, model, *others)
        weights = [p for name, p in model.named_parameters() if name.startswith(NETWORK)]
        held[model_name] = sum(own(p).numel() for p in weights) / sum(p.numel() for p in weights)

    vars(launch)["fit"] = told
    model_name = "parts"
    launch.main(arguments(place, "parts", "fsdp", STEPS))
    run = last(place, "parts").parents[1]
    launch.main(["-r", str(run), "-t", "--devices", "2", "--strategy", "fsdp", "--max_steps", str(MORE)])
    model_name = "whole"
    launch.main(arguments(place, "whole", "ddp", MORE))
    return held


def own(weight: Tensor) -> Tensor:
    """What lies in this process of a weight."""
    return weight.to_local() if isinstance(weight, DTensor) else weight


@pytest.fixture(scope="module")
def held(place: Path) -> list[dict[str, float]]:
    """The share of the UNet's weights that each of two processes keeps, by run."""
    return both(place, torchrun, partial(train, place))


def test_each_process_keeps_half(held: list[dict[str, float]]) -> None:
    assert all(process["whole"] == 1.0 for process in held)
    assert all(0.4 < process["parts"] < 0.6 for process in held)
    assert sum(process["parts"] for process in held) == pytest.approx(1)


def test_it_learns_as_with_ddp_and_goes_on_as_if_it_had_not_been_stopped(
    held: list[dict[str, float]], place: Path
) -> None:
    parts, whole = read_file(last(place, "parts")), read_file(last(place, "whole"))
    assert parts["global_step"] == whole["global_step"] == MORE
    assert list(parts["state_dict"]) == list(whole["state_dict"])
    ours, theirs = (one["optimizer_states"][0] for one in (parts, whole))
    for name in ("lr", "params"):
        assert ours["param_groups"][0][name] == theirs["param_groups"][0][name]
    began = read_state_dict(place / "model.safetensors")
    moved = 0
    for index, key in enumerate(key for key in whole["state_dict"] if key.startswith(NETWORK)):
        moment = theirs["state"][index]["exp_avg"]
        torch.testing.assert_close(ours["state"][index]["exp_avg"], moment, rtol=1e-3, atol=1e-7)
        if moment.abs().min() > 1e-6:  # without an effect on the loss Adam follows rounding errors
            torch.testing.assert_close(parts["state_dict"][key], whole["state_dict"][key], rtol=1e-3, atol=1e-5)
            moved += not torch.allclose(began[key], whole["state_dict"][key], atol=1e-4)
    assert moved > 20


def test_one_process_goes_on_with_it_and_makes_pictures(held: list[dict[str, float]], place: Path) -> None:
    ckpt = last(place, "parts")
    studio = open_studio(ckpt, config=str(place / "whole.yaml"), device="cpu")
    base = open_studio(place / "model.safetensors", device="cpu")
    assert differs(made(studio, prompt="a cat"), made(base, prompt="a cat"))
    launch.main(
        ["-r", str(ckpt.parents[1]), "-t", "--devices", "1", "--strategy", "auto", "--max_steps", str(MORE + 1)]
    )
    assert read_file(ckpt)["global_step"] == MORE + 1


@pytest.mark.parametrize(
    ("yaml", "more", "message"),
    [
        ("lora", (), "between processes, but here 'lora.factors.*' learns; ddp trains that"),
        ("whole", ("model.params.use_ema=true",), "use_ema must be false"),
        ("whole", ("lightning.save=diff",), "lightning.save must be all"),
    ],
)
def test_what_cannot_be_parted(place: Path, yaml: str, more: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        launch.main([*arguments(place, "never", "fsdp", 1, yaml), "--devices", "1", *more])

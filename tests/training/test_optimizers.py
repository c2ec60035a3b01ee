"""Optimizers by short names: Adam in 8 bits where bitsandbytes is installed, a sentence where it is not."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from ldm.checkpoint import read_file, read_state_dict
from ldm.training.launch import main
from ldm.training.optimizers import apply_optimizer
from ldm.util import ConfigError, MissingPartError
from tests.training import test_lora
from tests.training.test_lora import run

place = test_lora.place  # the fixture
IS_REAL = importlib.util.find_spec("bitsandbytes") is not None
EIGHT = "lightning.optimizer=adamw8bit"
PLAIN = {"step", "exp_avg", "exp_avg_sq", "state1", "state2"}  # of a state that is not in bytes
SMALLEST = "model.params.optimizer_config.params.min_8bit_size=64"  # of 4096 values else, which nothing here has


class StandIn(torch.optim.AdamW):
    """In the place of bitsandbytes' AdamW8bit, where that is not installed."""

    def __init__(self, params: Any, lr: float, min_8bit_size: int) -> None:
        super().__init__(params, lr=lr)


@pytest.fixture
def bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package itself, or something of its name."""
    if not IS_REAL:
        package, optim = (ModuleType(name) for name in ("bitsandbytes", "bitsandbytes.optim"))
        package.__spec__ = importlib.machinery.ModuleSpec("bitsandbytes", None)
        setattr(optim, "AdamW8bit", StandIn)  # noqa: B010  (mypy knows no such attribute)
        setattr(package, "optim", optim)  # noqa: B010
        monkeypatch.setitem(sys.modules, "bitsandbytes", package)
        monkeypatch.setitem(sys.modules, "bitsandbytes.optim", optim)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("bitsandbytes")
def test_a_lora_learns_in_8_bits_and_goes_on_to_the_same_bits(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LDM_TRUST_CONFIG")  # a run that goes on may name it
    whole = run(place, tmp_path / "whole", "lora", "circle", EIGHT, SMALLEST)
    states: Any = read_file(whole / "last.ckpt")["optimizer_states"][0]["state"].values()
    eight = [state["__bnb_optimizer_quant_state__"]["state1"] for state in states if not state.keys() <= PLAIN]
    assert any(state.dtype == torch.uint8 for state in eight) == IS_REAL
    half = run(place, tmp_path / "half", "lora", "circle", EIGHT, SMALLEST, "--max_steps", "2")
    main(["-t", "-r", str(half.parent), "--max_steps", "4"])
    one, other = (read_state_dict(folder / "lora.safetensors") for folder in (whole, half))
    assert all(torch.equal(other[key], value) for key, value in one.items())


def test_without_the_package_it_says_how_to_get_it(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    message = "needs bitsandbytes, which is not installed: run 'pip install bitsandbytes'"
    for change in (EIGHT, "model.params.optimizer_config.target=bitsandbytes.optim.AdamW8bit"):
        with pytest.raises(MissingPartError, match=re.escape(message)):
            run(place, tmp_path, "lora", "circle", change)
    assert not list(tmp_path.iterdir())


def test_parameters_of_the_optimizer_stay_and_names_are_known() -> None:
    config = OmegaConf.create({"model": {"params": {"optimizer_config": {"params": {"betas": [0.9, 0.99]}}}}})
    apply_optimizer(config, OmegaConf.create({"optimizer": "adamw"}))
    node = {"params": {"betas": [0.9, 0.99]}, "target": "torch.optim.AdamW"}
    assert OmegaConf.to_container(config.model.params.optimizer_config) == node
    for wrong, said in (("lion", "lion"), (["adamw"], "['adamw']"), ({"name": "adamw"}, "{'name': 'adamw'}"), (8, "8")):
        message = f"lightning.optimizer is '{said}'; it must be one of adamw, adamw8bit"
        with pytest.raises(ConfigError, match=re.escape(message)):
            apply_optimizer(config, OmegaConf.create({"optimizer": wrong}))

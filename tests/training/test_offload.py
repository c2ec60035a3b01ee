"""Frozen weights in a file: the same values and answers, no memory between two calls, and what is refused."""

from __future__ import annotations

import errno
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from ldm.training import offload as offloading
from ldm.training.offload import lay_in_file, offload
from ldm.util import ConfigError, UserError

CPU, WISH = torch.device("cpu"), OmegaConf.create({"offload": True})


def resident_mb() -> float:
    """Of this process, mapped files among it."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def memory_of_a_layer(folder: Path) -> tuple[float, float, float, float]:
    """In MB: with a layer of 64 MB, when it lies in a file, after it was called, and after its weights were read."""
    layer = nn.Linear(4096, 4096).requires_grad_(False)
    held = resident_mb()
    lay_in_file(layer, folder)
    laid = resident_mb()
    with torch.no_grad():
        layer(torch.ones(1, 4096))
    called = resident_mb()
    assert float(layer.weight.abs().sum()) > 0
    return held, laid, called, resident_mb()


def network() -> Any:
    torch.manual_seed(0)
    attention = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
    convolution: Any = nn.Conv2d(8, 64, 3, padding=1)
    convolution.to(memory_format=torch.channels_last)
    return nn.Sequential(convolution, nn.Flatten(2), nn.Linear(64, 64), attention).requires_grad_(False)


def test_values_orders_and_answers_stay(tmp_path: Path) -> None:
    plain, laid = network(), network()
    laid[2].bias.requires_grad_(True)
    bias = laid[2].bias.data_ptr()
    lay_in_file(laid, tmp_path)
    assert not list(tmp_path.iterdir()), "the file has no name"
    assert laid[2].bias.data_ptr() == bias, "what learns stays in memory"
    x = torch.randn(2, 8, 8, 8)
    for _ in range(2):
        for (name, value), other in zip(plain.named_parameters(), laid.parameters(), strict=True):
            assert torch.equal(value, other) and value.stride() == other.stride(), name
        assert torch.equal(plain(x), laid(x))


def test_what_lies_in_a_file_is_saved_as_ever(tmp_path: Path) -> None:
    plain, laid = network(), network()
    lay_in_file(laid, tmp_path)
    laid(torch.randn(2, 8, 8, 8))
    sizes = []
    for row in (plain, laid):
        torch.save(row.state_dict(), tmp_path / "row.pt")
        sizes.append((tmp_path / "row.pt").stat().st_size)
    assert sizes[0] == sizes[1], "each weight alone, not the whole file with each"
    saved = torch.load(tmp_path / "row.pt", weights_only=True)
    assert all(torch.equal(saved[name], value) for name, value in plain.state_dict().items())


def test_a_gradient_passes_through_and_new_weights_can_be_loaded(tmp_path: Path) -> None:
    plain, laid = network(), network()
    lay_in_file(laid, tmp_path)
    other = {name: value + 1 for name, value in plain.state_dict().items()}
    for row in (plain, laid):
        row.load_state_dict(other)
    gradients = []
    for row in (plain, laid):
        x = torch.ones(1, 8, 8, 8, requires_grad=True)
        row(x).square().sum().backward()
        assert x.grad is not None
        gradients.append(x.grad)
    assert torch.equal(*gradients)


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="the system does not say what is in memory")
def test_weights_take_no_memory_before_and_after_a_call(tmp_path: Path) -> None:
    """In a process of its own: after other tests a heap may have room for a layer, which it keeps when that goes."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        held, laid, called, read = pool.submit(memory_of_a_layer, tmp_path).result()
    assert laid < held - 50 and called < held - 50
    assert read > held - 20, "they come back when they are read"


def test_it_takes_what_a_model_has_of_such_parts(tmp_path: Path) -> None:
    model: Any = nn.Module()
    with pytest.raises(ConfigError, match="this one has none"):
        offload(model, WISH, CPU, tmp_path)
    model.first_stage_model, model.cond_stage_model = network(), None
    before = [p.data_ptr() for p in model.parameters()]
    offload(model, WISH, torch.device("meta"), tmp_path)  # in a GPU's place
    offload(model, OmegaConf.create({"offload": False}), CPU, tmp_path)
    assert [p.data_ptr() for p in model.parameters()] == before
    offload(model, WISH, CPU, tmp_path)
    assert not {p.data_ptr() for p in model.parameters()} & set(before)


def test_a_part_of_two_names_is_laid_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    laid: list[nn.Module] = []
    monkeypatch.setattr(offloading, "lay_in_file", lambda part, _: laid.append(part))
    model: Any = nn.Module()
    model.conditioner = network()
    model.cond_stage_model = model.conditioner
    offload(model, WISH, CPU, tmp_path)
    assert laid == [model.conditioner]


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(UserError, match=r"cannot be written to .*No space left"):
        offloading.lay_in_file(network(), tmp_path)

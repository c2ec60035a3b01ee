"""Writing weights: formats that others read, nothing half-written, the old file survives."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import safetensors.torch
import torch

from ldm.checkpoint import read_file, read_metadata, read_state_dict, save_state_dict, write_file
from ldm.util import UserError

BASE = torch.arange(12.0)
WEIGHTS = {
    "a": BASE[:4],
    "b": BASE.reshape(3, 4).T,
    "half": torch.ones(3, dtype=torch.bfloat16),
    "byte": torch.tensor([1, 2, 3], dtype=torch.uint8),
    "scalar": torch.tensor(2, dtype=torch.int64),
    "empty": torch.zeros(0, 2),
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "키": torch.zeros(1),
}


def same(read: dict[str, torch.Tensor]) -> bool:
    return read.keys() == WEIGHTS.keys() and all(
        read[key].dtype == value.dtype and torch.equal(read[key], value) for key, value in WEIGHTS.items()
    )


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".safetensors"])
def test_written_and_read_back(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / f"model{suffix}"
    save_state_dict(WEIGHTS, path, {"note": "한국"})
    assert same(read_state_dict(path))
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_others_can_read_what_is_written(tmp_path: Path) -> None:
    save_state_dict(WEIGHTS, tmp_path / "x.safetensors", {"steps": 3})
    assert same(safetensors.torch.load_file(tmp_path / "x.safetensors"))
    assert read_metadata(tmp_path / "x.safetensors") == {"format": "pt", "steps": "3"}
    save_state_dict(WEIGHTS, tmp_path / "x.ckpt", {"global_step": 3})
    loaded = torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert same(loaded["state_dict"]) and loaded["global_step"] == 3


def test_a_safetensors_file_is_the_same_each_time_and_readable_by_others(tmp_path: Path) -> None:
    fields = {letter: '"\\\n\x01한' + letter for letter in "hgfedcba"}
    for number in range(3):
        save_state_dict(WEIGHTS, tmp_path / f"{number}.safetensors", fields)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    assert read_metadata(tmp_path / "0.safetensors") == {"format": "pt", **fields}
    (tmp_path / "plain").touch()
    assert (tmp_path / "0.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_tensors_that_share_memory_are_written_once_each(tmp_path: Path) -> None:
    save_state_dict({"a": BASE, "b": BASE, "c": BASE[2:6]}, tmp_path / "x.safetensors")
    read = safetensors.torch.load_file(tmp_path / "x.safetensors")
    assert torch.equal(read["a"], BASE) and torch.equal(read["b"], BASE) and torch.equal(read["c"], BASE[2:6])


def test_a_view_does_not_carry_the_rest_of_its_storage(tmp_path: Path) -> None:
    save_state_dict({"view": torch.zeros(1_000_000)[:10]}, tmp_path / "x.ckpt")
    assert (tmp_path / "x.ckpt").stat().st_size < 10_000


def test_nested_objects(tmp_path: Path) -> None:
    value = {"string_to_token": {"*": 265}, "string_to_param": torch.nn.ParameterDict({"*": torch.ones(2, 3)})}
    write_file(value, tmp_path / "embedding.pt")
    assert torch.equal(read_file(tmp_path / "embedding.pt")["string_to_param"]["*"], torch.ones(2, 3))


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="suffix"):
        save_state_dict(WEIGHTS, tmp_path / "model.txt")
    with pytest.raises(UserError, match=r"'step' is a int, not a tensor"):
        save_state_dict({"step": 5}, tmp_path / "model.ckpt")  # type: ignore[dict-item]
    with pytest.raises(UserError, match=r"cannot write 'a' as safetensors: .* no type torch\.complex128"):
        save_state_dict({"a": torch.zeros(1, dtype=torch.complex128)}, tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        save_state_dict(WEIGHTS, tmp_path / "file" / "model.ckpt")


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """Writing more than ``limit`` bytes fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_full_disk_leaves_the_old_file(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    save_state_dict(WEIGHTS, path)
    before = path.read_bytes()
    with file_size_limit(200_000), pytest.raises(UserError, match="cannot write") as caught:
        save_state_dict({"large": torch.zeros(1_000_000)}, path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == [path.name]

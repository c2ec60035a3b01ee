"""Opening a weight file runs nothing that the file names, whichever way it names it."""

from __future__ import annotations

import collections
import io
import os
import pathlib
import pickle
import random
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from ldm.checkpoint import StandIn, read_file, read_state_dict
from ldm.util import UserError
from tests.checkpoint.pickles import as_old_torch, as_torch_zip, attacks

NAMES = list(attacks(""))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("container", ["plain", "zip", "old"])
def test_nothing_runs_and_the_error_names_it(name: str, container: str, tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "model.ckpt"
    data = attacks(f"touch {trace}")[name]
    write = {"plain": lambda d, p: p.write_bytes(d), "zip": as_torch_zip, "old": as_old_torch}[container]
    write(b"\x80\x02}.", path)
    read_file(path)  # so that what reading itself imports is there
    write(data, path)
    before = set(sys.modules)
    with pytest.raises(UserError, match=r"asks to call|is damaged") as caught:
        read_file(path)
    assert "\n" not in str(caught.value)
    assert not trace.exists()
    assert set(sys.modules) - before == set(), "a module was imported"


@pytest.mark.parametrize("name", ["protocol 0", "REDUCE", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ"])
def test_the_attacks_work_on_an_ordinary_unpickler(name: str, tmp_path: Path) -> None:
    """So that the test above is not passed by pickles that do nothing."""
    trace = tmp_path / "trace"
    try:
        pickle.loads(attacks(f"touch {trace}")[name])
    except (TypeError, pickle.UnpicklingError):  # NEWOBJ: Python itself insists on a class
        assert name in ("NEWOBJ", "OBJ", "INST")
    else:
        assert trace.exists()


def test_os_system_is_named(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'trace'}",)

    torch.save({"state_dict": {"w": torch.ones(2)}, "x": Evil()}, tmp_path / "model.ckpt")
    with pytest.raises(UserError, match=r"asks to call posix\.system|asks to call nt\.system"):
        read_state_dict(tmp_path / "model.ckpt")
    assert not (tmp_path / "trace").exists()


class Callback:
    """Stands for a class of a package that is not installed where the file is read."""

    def __init__(self) -> None:
        self.best = 0.5

    def __setstate__(self, state: Any) -> None:
        raise AssertionError("ran")


class Settings(dict):
    """A dictionary of a foreign class, as Lightning stores hyperparameters."""


def test_unknown_classes_become_inert(tmp_path: Path) -> None:
    value = {"state_dict": {"w": torch.ones(2)}, "callbacks": {Callback: Callback()}, "hparams": Settings(lr=0.1)}
    torch.save(value, tmp_path / "model.ckpt")
    read = read_file(tmp_path / "model.ckpt")
    (kind, stand_in), = read["callbacks"].items()
    assert str(kind).endswith("Callback")
    assert isinstance(stand_in, StandIn)
    assert stand_in.state == {"best": 0.5}
    assert read["hparams"].items == {"lr": 0.1}
    assert torch.equal(read["state_dict"]["w"], torch.ones(2))


PLAIN: dict[str, Any] = {
    "array": np.arange(6.0).reshape(2, 3), "fortran": np.asfortranarray(np.eye(3)), "text": np.array(["a", "bc"]),
    "number": np.float32(0.5), "random": random.getstate(), "numpy random": np.random.get_state(),
    "counter": collections.Counter("aab"), "default": collections.defaultdict(list, {1: [2]}),
    "ordered": collections.OrderedDict(b=1, a=2), "set": {1, "x"}, "frozen": frozenset({3}), "complex": 1 + 2j,
    "bytes": b"\x00\xff", "bytearray": bytearray(b"zz"), "large": 10**40, "unicode": "한국 中文", "none": None,
    "dtype": torch.bfloat16, "device": torch.device("cuda:1"), "size": torch.Size([1, 2]), "negative": -7, "yes": True,
}  # fmt: skip
TENSORS = {
    "view": torch.arange(10)[2:5], "transposed": torch.arange(6).reshape(2, 3).T, "empty": torch.zeros(0, 3),
    "scalar": torch.tensor(5), "half": torch.ones(3).half(), "bfloat": torch.ones(3).bfloat16(),
    "unsigned": torch.tensor([1, 2], dtype=torch.uint16), "bool": torch.tensor([True, False]),
    "parameter": torch.nn.Parameter(torch.ones(2, 2)),
}  # fmt: skip


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("container", ["plain", "zip", "old"])
def test_ordinary_contents_come_back_equal(protocol: int, container: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    value = {**PLAIN, **TENSORS, "embeddings": torch.nn.ParameterDict({"*": torch.nn.Parameter(torch.ones(1, 4))})}
    if container == "plain":
        path.write_bytes(pickle.dumps(value, protocol))
    elif protocol < 2:
        pytest.skip("torch.save needs protocol 2")
    else:
        torch.save(value, path, pickle_protocol=protocol, _use_new_zipfile_serialization=container == "zip")
    read = read_file(path)
    for key, expected in TENSORS.items():
        assert read[key].dtype == expected.dtype and torch.equal(read[key], expected), key
    for key, expected in PLAIN.items():
        if key == "numpy random":
            assert all(np.array_equal(a, b) for a, b in zip(read[key], expected, strict=True))
        elif isinstance(expected, np.ndarray):
            assert read[key].dtype == expected.dtype and np.array_equal(read[key], expected), key
        else:
            assert read[key] == expected, key
    assert torch.equal(read["embeddings"]["*"], torch.ones(1, 4))


def test_shared_storages_stay_shared(tmp_path: Path) -> None:
    base = torch.arange(10.0)
    torch.save({"a": base[:5], "b": base[5:], "c": base}, tmp_path / "x.pt")
    read = read_file(tmp_path / "x.pt")
    read["c"][0] = 100
    assert read["a"][0] == 100


def _tensor_pickle(size: str, stride: str, count: int = 4, offset: int = 0) -> bytes:
    """A dictionary with one float tensor over storage 0 of ``count`` elements; size and stride as protocol 0."""
    storage = f"(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI{count}\ntQ".encode()
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + f"I{offset}\n({size}t({stride}tI00\n".encode()
    return b"\x80\x02}X\x01\x00\x00\x00w" + call + b"ccollections\nOrderedDict\n)RtRs."


def _write(path: Path, pickle_bytes: bytes, storage: bytes) -> None:
    as_torch_zip(pickle_bytes, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/0", storage)


def test_tensors_stay_inside_their_storage(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    _write(path, _tensor_pickle("I2\nI2\n", "I2\nI1\n"), np.arange(4, dtype=np.float32).tobytes())
    assert torch.equal(read_file(path)["w"], torch.arange(4.0).reshape(2, 2))
    for size, stride, count, offset in [
        ("I5\n", "I1\n", 4, 0),
        ("I4\n", "I1\n", 4, 1),
        ("I4\n", "I1\n", 4, -1),
        ("I4\n", "I-1\n", 4, 3),
        ("I-1\n", "I1\n", 4, 0),
        ("I4\n", "I1\n", 400, 0),
        ("I1000000000000\n", "I0\n", 4, 0),
        ("I4\n", "I1\nI1\n", 4, 0),
    ]:
        _write(path, _tensor_pickle(size, stride, count, offset), np.arange(4, dtype=np.float32).tobytes())
        with pytest.raises(UserError, match="is damaged"):
            read_file(path)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02cbuiltins\nbytearray\n\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x0f\x85R.",  # bytearray(2**60)
        b"\x80\x02cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nX\x02\x00\x00\x00O8\x85RX\x00\x00\x00\x00\x86R.",
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R(K\x01\x8a\x07\x00\x00\x00\x00\x00\x00\x10\x85cnumpy\ndtype\n)R\x89C\x00tb.",
        b"\x80\x02}" + b")" + b"2\x86" * 60 + b"Ns.",  # a key whose hash would take 2**60 steps
        b"\x80\x02" + b"]" * 100_000,
        b"\x80\x02K\x01K\x02",
        b"\x80\x02h\x05.",
        b"\x80\x02R.",
        b"\x80\x02(.",
        b"\x80\x02X\xff\xff\xff\x7fabc",
        b"\x80\x05\x97.",
    ],
)
def test_malformed_pickles_are_damaged_files(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(data)
    with pytest.raises(UserError, match=r"is damaged|asks to call"):
        read_file(tmp_path / "x.ckpt")


def test_cut_anywhere_it_is_an_error_and_nothing_worse(tmp_path: Path) -> None:
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        buffer = io.BytesIO()
        torch.save({"state_dict": {"a": torch.ones(5), "b": torch.zeros(2, 2)}, "epoch": 1}, buffer, **options)
        data = buffer.getvalue()
        for length in range(1, len(data) - 1, 7):
            (tmp_path / "x.ckpt").write_bytes(data[:length])
            with pytest.raises(UserError):
                read_state_dict(tmp_path / "x.ckpt")


def test_random_changes_never_escape_as_other_errors(tmp_path: Path) -> None:
    generator = random.Random(0)
    value = {"a": 1, "b": [np.arange(3), {"c": (1, 2)}], "o": collections.OrderedDict(x=1)}
    originals = [pickle.dumps(value, protocol) for protocol in (0, 2, 4)]
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(5), "p": pathlib.Path("x")}, buffer)
    for original in [*originals, buffer.getvalue(), safetensors.torch.save({"a": torch.ones(5)})]:
        for _ in range(150):
            data = bytearray(original)
            for _ in range(generator.randint(1, 4)):
                data[generator.randrange(len(data))] = generator.randrange(256)
            (tmp_path / "x.ckpt").write_bytes(data)
            try:
                read_file(tmp_path / "x.ckpt")
            except UserError:
                continue

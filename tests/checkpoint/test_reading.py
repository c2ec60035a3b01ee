"""Any weight file by its content; what is wrong with it in one sentence; EMA and wrappers."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image

from ldm.checkpoint import is_lightning_checkpoint, read_file, read_metadata, read_state_dict, save_state_dict
from ldm.checkpoint.source import MappedFile
from ldm.util import UserError

WEIGHTS = {
    "model.diffusion_model.a.weight": torch.arange(6.0).reshape(2, 3),
    "model.diffusion_model.b": torch.tensor(0.5, dtype=torch.float16),
    "betas": torch.linspace(0, 1, 5, dtype=torch.float64),
    "ids": torch.arange(3),
}


def write(kind: str, path: Path) -> None:
    if kind == "safetensors":
        safetensors.torch.save_file(WEIGHTS, path)
    elif kind == "bare":
        torch.save(WEIGHTS, path)
    else:
        torch.save({"state_dict": WEIGHTS, "epoch": 3}, path, _use_new_zipfile_serialization=kind == "zip")


def assert_weights(read: dict[str, torch.Tensor], expected: Mapping[str, torch.Tensor] = WEIGHTS) -> None:
    assert read.keys() == expected.keys()
    for key, value in expected.items():
        assert read[key].dtype == value.dtype and torch.equal(read[key], value), key


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".bin", ".safetensors", ".download"])
@pytest.mark.parametrize("kind", ["safetensors", "zip", "old", "bare"])
def test_content_decides_and_the_suffix_does_not(kind: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    write(kind, path)
    assert_weights(read_state_dict(path))


@pytest.mark.parametrize("kind", ["safetensors", "zip", "old"])
def test_tensors_may_be_changed_and_the_file_stays(kind: str, tmp_path: Path) -> None:
    write(kind, tmp_path / "x")
    before = (tmp_path / "x").read_bytes()
    for tensor in read_state_dict(tmp_path / "x").values():
        tensor.zero_()
    assert (tmp_path / "x").read_bytes() == before
    assert_weights(read_state_dict(tmp_path / "x"))


@pytest.mark.parametrize("kind", ["safetensors", "old"])
def test_every_tensor_is_aligned_to_its_type(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    weights = {"odd": torch.arange(3, dtype=torch.uint8), "wide": torch.arange(4, dtype=torch.float64)}
    if kind == "old":
        torch.save(weights, path, _use_new_zipfile_serialization=False)
    else:  # the format's own writer aligns; others may not
        odd = b'"odd":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}'
        header = b"{" + odd + b',"wide":{"dtype":"F64","shape":[4],"data_offsets":[3,35]}}'
        data = weights["odd"].numpy().tobytes() + weights["wide"].numpy().tobytes()
        path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    read = read_state_dict(path)
    assert all(value.data_ptr() % value.element_size() == 0 for value in read.values())
    assert all(torch.equal(read[key], value) for key, value in weights.items())


def test_weights_are_found_under_what_wraps_them(tmp_path: Path) -> None:
    for wrapped in (
        {"model": WEIGHTS},
        {"module": {"state_dict": WEIGHTS}},
        {f"module.{key}": value for key, value in WEIGHTS.items()},
        {"state_dict": {f"_orig_mod.{key}": value for key, value in WEIGHTS.items()}},
        {"state_dict": {**WEIGHTS, "step": 5}},
    ):
        torch.save(wrapped, tmp_path / "x.pt")
        assert_weights(read_state_dict(tmp_path / "x.pt"))
    own = {"module.weight": torch.zeros(1), "weight": torch.ones(1)}  # a model's own name, for not all begin with it
    torch.save(own, tmp_path / "x.pt")
    assert_weights(read_state_dict(tmp_path / "x.pt"), own)


def test_ema_weights_take_the_place_of_the_trained_ones(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    averages = {"model_ema.diffusion_modelaweight": torch.full((2, 3), 7.0), "model_ema.decay": torch.tensor(0.999)}
    torch.save({"state_dict": {**WEIGHTS, **averages}}, tmp_path / "x.ckpt")
    key = "model.diffusion_model.a.weight"
    assert torch.equal(read_state_dict(tmp_path / "x.ckpt")[key], WEIGHTS[key])
    read = read_state_dict(tmp_path / "x.ckpt", ema=True)
    assert torch.equal(read[key], averages["model_ema.diffusion_modelaweight"])
    assert torch.equal(read["betas"], WEIGHTS["betas"])
    assert not caplog.records
    write("zip", tmp_path / "y.ckpt")
    assert_weights(read_state_dict(tmp_path / "y.ckpt", ema=True))
    assert "holds no EMA weights" in caplog.text


def test_ema_of_an_autoencoder_file(tmp_path: Path) -> None:
    weights = {"encoder.conv_in.weight": torch.ones(2), "model_ema.encoderconv_inweight": torch.zeros(2)}
    torch.save(weights, tmp_path / "x")
    assert torch.equal(read_state_dict(tmp_path / "x", ema=True)["encoder.conv_in.weight"], torch.zeros(2))


def test_metadata_and_lightning_marks(tmp_path: Path) -> None:
    save_state_dict(WEIGHTS, tmp_path / "x.safetensors", {"steps": 500})
    assert read_metadata(tmp_path / "x.safetensors")["steps"] == "500"
    training = {"state_dict": WEIGHTS, "global_step": 5, "pytorch-lightning_version": "2.6.0", "optimizer_states": []}
    torch.save(training, tmp_path / "last.ckpt")
    assert is_lightning_checkpoint(tmp_path / "last.ckpt")
    assert not is_lightning_checkpoint(tmp_path / "x.safetensors")
    assert read_file(tmp_path / "last.ckpt")["global_step"] == 5


def _picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "PNG")
    return buffer.getvalue()


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "hello")
    return buffer.getvalue()


def _compressed() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}." + b"\0" * 1000)
    return buffer.getvalue()


def _torch(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


FOREIGN = {
    "a PNG image": _picture(),
    "a JPEG image": b"\xff\xd8\xff\xe0" + b"x" * 100,
    "a web page": b"\n<!DOCTYPE html><html><body>Sign in</body></html>",
    "a git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n",
    "is empty": b"",
    "a text file": b"model:\n  target: x\n",
    "a gzip archive": b"\x1f\x8b\x08" + b"x" * 50,
    "filled with zeros": b"\0" * 100,
    "a tar archive": b"x" * 257 + b"ustar" + b"x" * 100,
    "of no kind that is known": bytes(range(200, 256)) * 3,
    "without torch weights": _zip(),
    "compressed or encrypted again": _compressed(),
    "a dictionary with 'epoch'": _torch({"epoch": 3}),
    "but a list": _torch([1, 2]),
    "a whole object of the class torch.nn.modules.linear.Linear": _torch(torch.nn.Linear(1, 1)),
    "a textual-inversion embedding": _torch({"string_to_param": {"*": torch.ones(1, 2)}}),
}


@pytest.mark.parametrize("words", FOREIGN)
def test_wrong_files_are_named_in_one_sentence(words: str, tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(FOREIGN[words])
    with pytest.raises(UserError) as caught:
        read_state_dict(tmp_path / "model.ckpt")
    message = str(caught.value)
    assert words in message and "model.ckpt" in message and "\n" not in message


def test_missing_file_folder_and_truncated_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        read_state_dict(tmp_path / "absent.ckpt")
    with pytest.raises(UserError, match="is a folder"):
        read_file(tmp_path)
    for kind in ("safetensors", "zip", "old"):
        write(kind, tmp_path / "x")
        data = (tmp_path / "x").read_bytes()
        for part in (0.3, 0.7, 0.95):
            (tmp_path / "x").write_bytes(data[: int(len(data) * part)])
            with pytest.raises(UserError, match="damaged or cut short"):
                read_state_dict(tmp_path / "x")


def _safetensors(header: object, data: bytes = b"\0" * 8) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def _entry(**changes: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}


HOSTILE = {
    "overlap": _safetensors({"a": _entry(), "b": _entry()}),
    "a hole": _safetensors({"a": _entry(data_offsets=[4, 12])}, b"\0" * 12),
    "more than the header": _safetensors({"a": _entry()}, b"\0" * 9),
    "a huge shape": _safetensors({"a": _entry(shape=[2**62, 4])}),
    "a boolean shape": _safetensors({"a": _entry(shape=[True, 2])}),
    "backwards": _safetensors({"a": _entry(data_offsets=[8, 0])}),
    "an unknown type": _safetensors({"a": _entry(dtype="F31")}),
    "fields that are no text": _safetensors({"__metadata__": {"a": 1}, "a": _entry()}),
    "too deep": _safetensors(b'{"a":' * 100_000),
    "no JSON": _safetensors(b"{" + b"\xff" * 9),
}


@pytest.mark.parametrize("words", HOSTILE)
def test_a_safetensors_header_that_does_not_fit_is_one_sentence(words: str, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(HOSTILE[words])
    with pytest.raises(UserError, match=r"x\.safetensors' is damaged or cut short: its safetensors header") as caught:
        read_file(tmp_path / "x.safetensors")
    assert str(caught.value).isprintable()


def test_pages_of_a_library_are_given_back_only_where_they_are_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file({"a": torch.ones(100_000)}, path)
    source = MappedFile(path)
    copied = torch.ones(100_000)
    source.adopt([copied])
    source.release(copied)
    assert copied.sum() == 100_000  # memory of its own keeps its values
    mapped = safetensors.torch.load_file(path)["a"]
    source.adopt([mapped])
    mapped.zero_()
    source.release(mapped)
    assert mapped.sum() > 97_000  # the file's pages are read again

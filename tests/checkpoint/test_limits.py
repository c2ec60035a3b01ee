"""Small files that ask for much, and files with a bit that flipped, end in one sentence."""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from ldm.checkpoint import is_lightning_checkpoint, read_embedding, read_file, read_state_dict
from ldm.checkpoint.checksums import checksum
from ldm.checkpoint.formats import open_file
from ldm.util import UserError
from tests.checkpoint.pickles import as_torch_zip, text

WEIGHTS = {f"layer{i}.weight": torch.randn(64, 64, generator=torch.Generator().manual_seed(i)) for i in range(6)}


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def records(data: bytes) -> list[tuple[int, int]]:
    """Where the contents of a zip's entries lie: (start, length)."""
    found = []
    for info in zipfile.ZipFile(io.BytesIO(data)).infolist():
        name, extra = struct.unpack("<HH", data[info.header_offset + 26 : info.header_offset + 30])
        if info.file_size and not info.filename.endswith(("version", "alignment", "_id", "byteorder")):
            found.append((info.header_offset + 30 + name + extra, info.file_size))
    return found


def test_every_flipped_bit_of_50_is_seen(tmp_path: Path) -> None:
    weights = WEIGHTS | {"empty": torch.zeros(0)}  # whose own checksum is 0: it does not speak for the others
    data, generator = saved({"state_dict": weights, "global_step": 1}), random.Random(0)
    places = records(data)
    for _ in range(50):
        start, length = generator.choices(places, weights=[size for _, size in places])[0]
        changed = bytearray(data)
        changed[start + generator.randrange(length)] ^= 1 << generator.randrange(8)
        (tmp_path / "x.ckpt").write_bytes(changed)
        with pytest.raises(UserError, match="damaged or cut short"):
            read_state_dict(tmp_path / "x.ckpt")


def test_a_file_without_checksums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        data = saved(WEIGHTS)
    finally:
        torch.serialization.set_crc32_options(True)
    (tmp_path / "x.pt").write_bytes(data)
    assert torch.equal(read_state_dict(tmp_path / "x.pt")["layer3.weight"], WEIGHTS["layer3.weight"])


def test_a_look_at_the_keys_reads_no_weights(tmp_path: Path) -> None:
    state = {"state_dict": WEIGHTS, "global_step": 1, "pytorch-lightning_version": "2"}
    changed = bytearray(saved(state))
    start, length = records(bytes(changed))[-1]
    changed[start + length // 2] ^= 1
    (tmp_path / "x.ckpt").write_bytes(changed)
    assert is_lightning_checkpoint(tmp_path / "x.ckpt")
    with pytest.raises(UserError, match="the checksum of"):
        read_file(tmp_path / "x.ckpt")


def test_tensors_stay_mapped_after_the_check(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1 << 22)}, tmp_path / "x.pt")
    contents = open_file(tmp_path / "x.pt")
    base = torch.frombuffer(contents.source.buffer, dtype=torch.uint8).data_ptr()
    assert base <= contents.value["w"].data_ptr() < base + contents.source.size


def test_a_nested_file_keeps_its_values_after_the_check(tmp_path: Path) -> None:
    big = torch.arange(100_000)
    (tmp_path / "x.pt").write_bytes(pickle.dumps({"w": big}))
    assert torch.equal(read_file(tmp_path / "x.pt")["w"], big)


def refused(data: bytes, path: Path, what: str) -> None:
    path.write_bytes(data)
    start = time.monotonic()
    with pytest.raises(UserError, match=what):
        read_file(path)
    assert time.monotonic() - start < 20


def test_copies_of_what_the_memo_holds(tmp_path: Path) -> None:
    letters = b"X" + struct.pack("<I", 1 << 16) + b"x" * (1 << 16)
    many = b"\x80\x02" + letters + b"q\x00" + b"(" + b"c_codecs\nencode\nh\x00\x85R" * 20_000 + b"l."
    refused(many, tmp_path / "bytes.pt", "copies what it holds again and again")
    lists = b"\x80\x02(" + b"K\x01" * 50_000 + b"lq\x00(" + b"cbuiltins\nlist\nh\x00\x85R" * 20_000 + b"l."
    refused(lists, tmp_path / "lists.pt", "copies what it holds again and again")


def test_keys_that_all_have_one_hash(tmp_path: Path) -> None:
    step = (1 << 61) - 1
    keys = b"".join(b"\x8a\x0a" + (i * step).to_bytes(10, "little", signed=True) + b"N" for i in range(1, 60_000))
    refused(b"\x80\x02}(" + keys + b"u.", tmp_path / "keys.pt", "without measure")


def test_numbers_of_12000_digits(tmp_path: Path) -> None:
    digits = (10**12_000).to_bytes(5000, "little")
    long = b"\x8b" + struct.pack("<i", len(digits)) + digits
    refused(b"\x80\x02}" + long + b"K\x01s.", tmp_path / "key.pt", "damaged")
    refused(b"\x80\x02}" + text("step") + long + b"s.", tmp_path / "value.pt", "damaged")
    refused(b"\x80\x00}I" + b"9" * 12_000 + b"\nK\x01s.", tmp_path / "text.pt", "damaged")


def tensor_pickle(size: bytes, stride: bytes, count: int, times: int = 1) -> bytes:
    kind = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    storage = kind + b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuJ" + struct.pack("<i", count)
    one = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"tQK\x00" + size + stride + b"\x89}tR"
    return b"\x80\x02(" + one * times + b"l."


def test_tensors_that_claim_more_than_the_file_has(tmp_path: Path) -> None:
    path, numbers = tmp_path / "x.pt", np.zeros(4096, np.float32).tobytes()

    def write(data: bytes) -> None:
        as_torch_zip(data, path)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("archive/data/0", numbers)

    write(tensor_pickle(b"M\x00\x10\x85", b"K\x01\x85", 4096, times=3))
    assert len(read_file(path)) == 3
    write(tensor_pickle(b"J\x00\x00\x00\x01\x85", b"K\x00\x85", 4096, times=2000))  # 16 M elements each, of stride 0
    with pytest.raises(UserError, match="its tensors claim"):
        read_file(path)
    write(tensor_pickle(b"\x88\x85", b"K\x01\x85", 4096))  # the shape (True,)
    with pytest.raises(UserError, match="not a list of whole numbers"):
        read_file(path)
    write(tensor_pickle(b"M\x00\x10\x85", b"K\x01\x85", 1 << 30))
    with pytest.raises(UserError, match="damaged"):
        read_file(path)


def test_storages_that_lie_over_each_other(tmp_path: Path) -> None:
    """Many entries of the zip's directory that point at the same bytes, each a storage of its own."""
    path, times = tmp_path / "x.pt", 50
    one = tensor_pickle(b"M\x00\x10\x85", b"K\x01\x85", 4096)[2:]
    parts = [one.replace(b"X\x01\x00\x00\x000", b"X\x02\x00\x00\x00" + b"%02d" % i)[1:-2] for i in range(times)]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02(" + b"".join(parts) + b"l.")
        archive.writestr("archive/data/00", np.zeros(4096, np.float32).tobytes())
        real = archive.getinfo("archive/data/00")
        for i in range(1, times):
            info = zipfile.ZipInfo(f"archive/data/{i:02}")
            info.header_offset, info.file_size, info.compress_size = real.header_offset, real.file_size, real.file_size
            info.CRC = real.CRC
            archive.filelist.append(info)
            archive.NameToInfo[info.filename] = info
        archive._didModify = True  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="its storages have"):
        read_file(path)


def picture_with(value: object, path: Path) -> None:
    import base64

    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    body = value if isinstance(value, str) else json.dumps(value)
    info.add_text("sd-ti-embedding", base64.b64encode(body.encode()).decode())
    Image.new("RGB", (8, 8)).save(path, "PNG", pnginfo=info)


@pytest.mark.parametrize(
    "body",
    [
        '{"string_to_param": {"*": {"TORCHTENSOR": [[1' + "0" * 400 + "]]}}}",
        '{"string_to_param": {"*": {"TORCHTENSOR": [[1' + "0" * 6000 + "]]}}}",
        '{"string_to_param": {"*": {"TORCHTENSOR": ' + "[" * 50_000 + "]" * 50_000 + "}}}",
        '{"string_to_param": {"*": {"TORCHTENSOR": [[1], [1, 2]]}}}',
        '{"string_to_param": {"*": {"TORCHTENSOR": "x"}}}',
        '{"string_to_param": {"*": {"TORCHTENSOR": [[1e999]]}}}',
        '{"step": 1' + "0" * 4200 + ', "string_to_param": {"*": 3}}',
        "[" * 100_000,
    ],
)
def test_odd_numbers_in_pictures(body: str, tmp_path: Path) -> None:
    picture_with(body, tmp_path / "x.png")
    with pytest.raises(UserError) as caught:
        read_embedding(tmp_path / "x.png")
    assert "\n" not in str(caught.value) and "x.png" in str(caught.value)


def test_a_flipped_bit_in_a_cache_is_seen(tmp_path: Path) -> None:
    from ldm.control import CacheError, FeatureStore
    from ldm.training.latent_files import Latents, is_made_from, read_latents, write_latents

    path, generator = tmp_path / "latents.safetensors", random.Random(1)
    moments = torch.randn(4, 8, 4, 4).half()
    write_latents(Latents(moments, torch.arange(4), None), path, "key")
    assert is_made_from(path, "key") and torch.equal(read_latents(path).moments, moments)
    store = FeatureStore()
    store.put("output_blocks.3", 0, "q", torch.randn(1, 2, 16, 8), 981.0)
    store.save(tmp_path / "features.safetensors")
    FeatureStore.load(tmp_path / "features.safetensors")
    for name in ("latents.safetensors", "features.safetensors"):
        whole = (tmp_path / name).read_bytes()
        start = 8 + struct.unpack("<Q", whole[:8])[0]
        for _ in range(20):
            changed = bytearray(whole)
            changed[generator.randrange(start, len(whole))] ^= 1 << generator.randrange(8)
            (tmp_path / name).write_bytes(changed)
            if name.startswith("latents"):
                assert not is_made_from(path, "key")
            else:
                with pytest.raises(CacheError, match="not those that were written"):
                    FeatureStore.load(tmp_path / name)


def test_a_checksum_is_of_names_types_shapes_and_values() -> None:
    values = torch.arange(6.0).reshape(2, 3)
    others = [
        {"b": values}, {"a": values.reshape(3, 2)}, {"a": values.view(torch.int32)}, {"a": values + 1},
        {"a": values, "b": torch.zeros(0)},
    ]  # fmt: skip
    whole = checksum({"a": values})
    assert whole == checksum({"a": values.T.contiguous().T}) and whole not in map(checksum, others)


def test_caches_of_earlier_versions_have_no_checksum_and_are_read(tmp_path: Path) -> None:
    from ldm.checkpoint import save_state_dict
    from ldm.training.latent_files import is_made_from

    save_state_dict({"moments": torch.ones(2)}, tmp_path / "x.safetensors", {"made_from": "key"})
    assert is_made_from(tmp_path / "x.safetensors", "key")

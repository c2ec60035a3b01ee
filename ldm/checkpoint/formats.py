"""The containers, told apart by content: safetensors, torch's zip, torch's older stream of pickles, plain pickles."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ldm.checkpoint.byte_weights import from_bytes
from ldm.checkpoint.pickle_machine import ForbiddenCallError, Name, PickleMachine
from ldm.checkpoint.pickle_vocabulary import STORAGE_DTYPES, UNTYPED_STORAGES, Storage, make_vocabulary
from ldm.checkpoint.source import DamagedFileError, MappedFile, describe_foreign
from ldm.shipped import here_or_shipped
from ldm.util import UserError

_MAX_HEADER = 100_000_000
_MAX_PICKLE = 1 << 28
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001


@dataclass
class Contents:
    """What a file holds: tensors or a nested object, and the mapping under it."""

    value: Any
    metadata: dict[str, str]
    source: MappedFile


def open_file(path: str | os.PathLike[str], verify: bool = True) -> Contents:
    """Read any weight file by its content; tensors stay mapped, and nothing that a pickle names is run.

    What ``byte_weights.in_bytes`` made of weights comes back in float32.

    Args:
        path: the file.
        verify: compare the checksums of a torch file, which reads all of it once; a look at its keys needs none.

    Raises:
        UserError: the file is missing, cut short, of another kind, or asks for something to be called.
    """
    try:
        source = MappedFile(here_or_shipped(path), verify)
        return _read(source)
    except OSError as error:
        raise UserError(f"cannot read '{path}': {error.strerror or error}") from error
    except ForbiddenCallError as error:
        raise UserError(
            f"'{path}' asks to call {error}, which no weight file needs; nothing of it was run: "
            "get the weights from a source that you trust, or as .safetensors"
        ) from error
    except DamagedFileError as error:
        raise UserError(f"'{path}' is damaged or cut short: {error}; download or copy it again") from error


def _read(source: MappedFile) -> Contents:
    head = bytes(source.buffer[:16])
    if head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] < _MAX_HEADER:
        tensors, metadata = _read_safetensors(source)
        return Contents(from_bytes(tensors), metadata, source)
    if head.startswith(b"PK\x03\x04"):
        return Contents(_read_zip(source), {}, source)
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        return Contents(_read_stream(source), {}, source)
    return Contents(_read_unmarked_pickle(source), {}, source)


def _read_safetensors(source: MappedFile) -> tuple[dict[str, Tensor], dict[str, str]]:
    """By the library, which refuses headers that leave holes, overlap or do not cover the file."""
    try:
        with safe_open(source.path, "pt") as file:
            tensors, metadata = file.get_tensors(), file.metadata() or {}
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise DamagedFileError("its safetensors header does not describe what is in it") from error
    source.adopt(tensors.values())
    return {key: source.aligned(tensor, tensor.dtype) for key, tensor in tensors.items()}, metadata


def _read_zip(source: MappedFile) -> Any:
    """What torch writes since 1.6: ``<name>/data.pkl`` and one uncompressed record a storage."""
    try:
        with zipfile.ZipFile(source.path) as archive:
            entries = {info.filename: info for info in archive.infolist()}
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error, OverflowError) as error:
        raise DamagedFileError("it begins as a torch file and has no end") from error
    if not any(info.CRC for info in entries.values()):
        source.verify = False  # torch was told to compute no checksums
    pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise UserError(f"'{source.path}' is a zip archive without torch weights; unpack it if it holds a model")
    prefix = pickles[0].removesuffix("data.pkl")
    if prefix + "constants.pkl" in entries:
        raise UserError(f"'{source.path}' is a TorchScript program, not a weight file")
    data, byteorder = entries[pickles[0]], entries.get(prefix + "byteorder")
    if byteorder is not None and bytes(_record(source, byteorder).numpy()) == b"big":
        raise DamagedFileError("it was written on a big-endian machine, which is not supported;")
    if data.file_size > _MAX_PICKLE:
        raise DamagedFileError(f"its list of tensors has {data.file_size} bytes")

    def find(key: str) -> Tensor:
        if prefix + "data/" + key not in entries:
            raise DamagedFileError(f"storage {key[:40]} is missing")
        return _record(source, entries[prefix + "data/" + key])

    machine = PickleMachine(make_vocabulary(_refuse_nested, source.size), _StorageTable(source, find))
    return machine.run(io.BytesIO(_record(source, data).numpy().tobytes()))


def _record(source: MappedFile, info: zipfile.ZipInfo) -> Tensor:
    """The bytes of one stored (not compressed) zip entry, mapped."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise DamagedFileError("it was compressed or encrypted again after torch wrote it;")
    local = bytes(source.bytes_at(info.header_offset, 30).numpy())
    if local[:4] != b"PK\x03\x04":
        raise DamagedFileError("its zip directory points nowhere")
    name, extra = struct.unpack("<HH", local[26:30])
    start = info.header_offset + 30 + name + extra
    if source.verify and source.checksum(start, info.file_size) != info.CRC:
        raise DamagedFileError(f"the checksum of '{info.filename[-40:]}' in it is wrong")
    return source.bytes_at(start, info.file_size)


class _StorageTable:
    """Turns torch's persistent ids ``('storage', type, key, location, count)`` into storages."""

    def __init__(self, source: MappedFile | None, find: Callable[[str], Tensor]) -> None:
        self.source = source
        self.find = find
        self.kinds: dict[str, tuple[torch.dtype, int]] = {}
        self._known: dict[str, Storage] = {}
        self._total = 0

    def __call__(self, identity: Any) -> Any:
        if isinstance(identity, tuple) and identity[:1] == ("module",) and len(identity) > 1:
            return identity[1]  # a class with its source text, which torch before 1.6 kept beside the weights
        if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
            raise DamagedFileError("a storage without a description")
        kind, key, count = identity[1], identity[2], identity[4]
        if not (isinstance(kind, Name) and isinstance(key, str) and type(count) is int and count >= 0):
            raise DamagedFileError("a storage has no proper type, name or size")
        dtype = torch.uint8 if str(kind) in UNTYPED_STORAGES else STORAGE_DTYPES.get(str(kind))
        if dtype is None:
            raise DamagedFileError(f"a storage of the unknown type {kind}")
        if key not in self._known:
            self.kinds[key] = (dtype, count)
            self._known[key] = Storage(self._load(key, dtype, count))
        view = identity[5] if len(identity) > 5 else None
        return self._known[key] if view is None else self._window(self._known[key], view)

    def _load(self, key: str, dtype: torch.dtype, count: int) -> Tensor:
        data = self.find(key)
        if data.is_meta:
            return torch.empty(count, dtype=dtype, device="meta")
        need = count * dtype.itemsize
        if data.numel() < need:
            raise DamagedFileError(f"storage {key[:40]} has {data.numel()} bytes of {need}")
        self._total += need
        if self.source is not None and self._total > self.source.size:
            raise DamagedFileError(f"its storages have {self._total} bytes together, the file {self.source.size}")
        data = data[:need]
        return data.view(dtype) if self.source is None else self.source.aligned(data, dtype)

    @staticmethod
    def _window(storage: Storage, view: Any) -> Storage:
        """A part of another storage, as torch before 0.4 wrote shared ones: ``(key, offset, count)``."""
        _, offset, count = view
        if not (type(offset) is int and type(count) is int and 0 <= offset <= offset + count):
            raise DamagedFileError("a storage view has no proper place")
        return Storage(storage.data[offset : offset + count])


def _read_stream(source: MappedFile) -> Any:
    """A torch file from before 1.6 (five pickles, then raw storages), or else a plain pickle."""
    source.buffer.seek(0)
    first = _plain_machine(source).run(source.buffer)
    if first != _LEGACY_MAGIC:
        return first
    return _read_legacy(source)


def _read_legacy(source: MappedFile) -> Any:
    """Where the storages lie is known only behind the pickle that needs them, so that one is run twice."""
    stream = source.buffer
    if _machine().run(stream) != _LEGACY_PROTOCOL:
        raise DamagedFileError("its torch protocol is unknown")
    system = _machine().run(stream)
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise DamagedFileError("it was written on a big-endian machine, which is not supported;")
    begin = stream.tell()
    nothing = torch.empty(0, device="meta")
    dry = _StorageTable(None, lambda key: nothing)
    PickleMachine(make_vocabulary(_refuse_nested, source.size), dry).run(stream)
    keys = _machine().run(stream)
    places: dict[str, Tensor] = {}
    at = stream.tell()
    for key in keys if isinstance(keys, list) else []:
        dtype, _ = dry.kinds.get(str(key), (torch.uint8, 0))
        count = int.from_bytes(bytes(source.bytes_at(at, 8).numpy()), "little")
        places[str(key)] = source.bytes_at(at + 8, count * dtype.itemsize)
        at += 8 + count * dtype.itemsize

    def find(key: str) -> Tensor:
        if key not in places:
            raise DamagedFileError(f"storage {key[:40]} is missing")
        return places[key]

    stream.seek(begin)
    return PickleMachine(make_vocabulary(_refuse_nested, source.size), _StorageTable(source, find)).run(stream)


def _machine() -> PickleMachine:
    return PickleMachine(make_vocabulary(_refuse_nested, 0), _StorageTable(None, _no_storage))


def _plain_machine(source: MappedFile) -> PickleMachine:
    """A plain pickle holds each tensor's storage as a small torch file of its own, in bytes."""

    def load_from_bytes(data: Any) -> Any:
        if not isinstance(data, bytes) or not data:
            raise DamagedFileError("a nested torch file is not bytes")
        if source.is_inner:
            raise DamagedFileError("a torch file inside a torch file inside another")
        return _read(MappedFile.from_bytes(data, source.path)).value

    return PickleMachine(make_vocabulary(load_from_bytes, source.size), _StorageTable(None, _no_storage))


def _no_storage(key: str) -> Tensor:
    raise DamagedFileError("a storage is mentioned where none can be")


def _refuse_nested(data: Any) -> Any:
    raise DamagedFileError("a torch file inside a torch file")


def _read_unmarked_pickle(source: MappedFile) -> Any:
    """Pickle protocols 0 and 1 have no mark of their own; what is no pickle either is named by its first bytes."""
    source.buffer.seek(0)
    try:
        value = _plain_machine(source).run(source.buffer)
    except DamagedFileError as error:
        raise UserError(f"'{source.path}' is not a weight file, it is {describe_foreign(source)}") from error
    if not isinstance(value, dict):
        raise UserError(f"'{source.path}' is not a weight file, it is {describe_foreign(source)}")
    return value

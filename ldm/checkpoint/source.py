"""A weight file in memory: mapped, never read as a whole, and recognised by its first bytes."""

from __future__ import annotations

import codecs
import ctypes
import mmap
import os
import zlib
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from ldm.released import how_to_get, is_released
from ldm.util import UserError

_FOREIGN: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a git-lfs pointer, not the file itself; fetch it with 'git lfs pull'"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"RIFF", "a RIFF file (WebP image, sound or video)"),
    (b"%PDF", "a PDF document"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"\xfd7zXZ", "an xz archive; unpack it first"),
    (b"GGUF", "a GGUF file, which is not supported"),
    (b"\x89HDF", "an HDF5 file (Keras or TensorFlow), which is not supported"),
    (b"\x93NUMPY", "a NumPy array"),
)
_PIECE = 1 << 25  # bytes that are looked at together


class DamagedFileError(Exception):
    """What a file holds contradicts itself; becomes a :class:`UserError` that names the file."""


class MappedFile:
    """A file mapped privately: tensors on it cost no copy, may be written to, and never change the file."""

    is_inner = False  # lies inside another file

    def __init__(self, path: str | os.PathLike[str], verify: bool = True) -> None:
        """Map ``path``; ``verify`` is whether whoever reads it should compare checksums, where it has some.

        Raises:
            UserError: there is no such file, it is a folder, it is empty, or it may not be read.
        """
        self.path, self.verify = Path(path), verify
        if self.path.is_dir():
            raise UserError(f"'{path}' is a folder, not a weight file")
        try:
            with self.path.open("rb") as file:
                self.size = os.fstat(file.fileno()).st_size
                if self.size == 0:
                    raise UserError(f"'{path}' is empty (0 bytes); download or copy it again")
                self.buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except FileNotFoundError as error:
            known = f"; {how_to_get(path)}" if is_released(path) else ""
            raise UserError(f"there is no file '{path}'{known}") from error
        except OSError as error:
            raise UserError(f"cannot read '{path}': {error.strerror or error}") from error
        self._bases = [torch.frombuffer(self.buffer, dtype=torch.uint8).data_ptr()]  # where the file lies in memory

    @classmethod
    def from_bytes(cls, data: bytes, path: Path) -> MappedFile:
        """A file that lies inside another one; ``path`` is the outer one, for messages."""
        made = cls.__new__(cls)
        made.path, made.size, made.verify, made.is_inner = path, len(data), True, True
        made.buffer = mmap.mmap(-1, max(len(data), 1))
        made.buffer[: len(data)] = data
        made._bases = [torch.frombuffer(made.buffer, dtype=torch.uint8).data_ptr()]
        return made

    def bytes_at(self, start: int, length: int) -> Tensor:
        """The bytes ``[start, start + length)`` as a uint8 tensor that shares the mapping.

        Raises:
            DamagedFileError: the range leaves the file.
        """
        if start < 0 or length < 0 or start + length > self.size:
            raise DamagedFileError(f"a tensor should end at byte {start + length}, but the file has {self.size}")
        if length == 0:
            return torch.empty(0, dtype=torch.uint8)
        return torch.frombuffer(self.buffer, dtype=torch.uint8, count=length, offset=start)

    def checksum(self, start: int, length: int) -> int:
        """The CRC-32 of the bytes ``[start, start + length)``.

        They are read through the mapping piece by piece, and each piece's memory is given back at once: what the system
        has cached of the file stays cached, and the process is no larger than before.

        Raises:
            DamagedFileError: the range leaves the file.
        """
        found = 0
        for begin in range(start, start + length, _PIECE):
            piece = self.bytes_at(begin, min(_PIECE, start + length - begin))
            found = zlib.crc32(piece.numpy().data, found)
            if not self.is_inner:  # whose memory holds the only copy
                self.release(piece)
        return found

    def aligned(self, data: Tensor, dtype: torch.dtype) -> Tensor:
        """A tensor seen as ``dtype``; copied first where the file put them at an address that the type may not have."""
        if data.data_ptr() % dtype.itemsize:
            copy = data.clone()
            self.release(data)
            data = copy
        return data.view(dtype)

    def adopt(self, tensors: Iterable[Tensor]) -> None:
        """Have :meth:`release` know tensors that a library mapped from this file, privately as well.

        They must fill the end of the file without a hole, as those of a safetensors file do.
        """
        filled = [tensor for tensor in tensors if tensor.numel()]
        begin = min((tensor.data_ptr() for tensor in filled), default=0)
        total = sum(tensor.nbytes for tensor in filled)
        start = begin - (self.size - total)
        # Memory that is no mapping would lose its contents: take only what lies as it does in the file.
        if filled and start % mmap.PAGESIZE == 0 and begin + total == max(t.data_ptr() + t.nbytes for t in filled):
            self._bases.append(start)

    def release(self, tensor: Tensor) -> None:
        """Give back the physical memory of pages that lie wholly inside ``tensor``; a later read maps them again."""
        advice = getattr(mmap, "MADV_DONTNEED", None)  # missing on Windows, where it would only save memory
        start, stop = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
        if advice is None or not any(base <= start and stop <= base + self.size for base in self._bases):
            return
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        last = stop // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), advice)


class MappedTensors(dict[str, Tensor]):
    """A state dict that remembers the files under its tensors, so that their pages can be given back."""

    def __init__(self, tensors: dict[str, Tensor], sources: list[MappedFile]) -> None:
        super().__init__(tensors)
        self.sources = sources


def describe_foreign(source: MappedFile) -> str:
    """Words for a file that is no weight file: what its first bytes say it is."""
    head = bytes(source.buffer[:512])
    for magic, words in _FOREIGN:
        if head.startswith(magic):
            return words
    if head[257:262] == b"ustar":
        return "a tar archive (torch before 0.1.10 or a packed folder), which is not supported"
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page; the download link led to HTML, probably a login or an error page"
    if not head.strip(b"\0"):
        return "filled with zeros, as after an interrupted download"
    return "a text file" if _is_text(head) else "of no kind that is known here"


def _is_text(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut in two
    except UnicodeDecodeError:
        return False
    return all(byte >= 32 or byte in b"\t\r\n" for byte in head)

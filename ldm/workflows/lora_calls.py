"""LoRAs that a prompt calls, as the web UI's users write them: ``<lora:name:0.8>``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from ldm.additions.lora.scales import LARGEST, Scales
from ldm.checkpoint import read_metadata
from ldm.util import UserError, nearest, printable

FOLDER = "models/lora"
SUFFIXES = (".safetensors", ".pt", ".bin", ".ckpt")
_CALL = re.compile(r"<(?:lora|lyco):([^<>]*)>")
_NAMES = ("te", "unet")


@dataclass(frozen=True)
class Call:
    """A file by its name, and how much of it in the text encoder and in the UNet."""

    name: str
    text: float = 1.0
    unet: float = 1.0

    @property
    def scales(self) -> Scales:
        return Scales.of(self.unet) if self.unet == self.text else Scales((("text", self.text), ("unet", self.unet)))


def calls_in(prompt: str) -> tuple[Call, ...]:
    """The LoRAs that a prompt calls: ``<lora:name>``, ``<lora:name:0.8>``, ``<lora:name:<text>:<unet>>``, or by name.

    Raises:
        UserError: one has no name, or a number that is none.
    """
    return tuple(_parse(match[0], match[1]) for match in _CALL.finditer(prompt))


def without_calls(prompt: str) -> str:
    """The prompt that the encoder reads."""
    return _CALL.sub("", prompt).strip() if _CALL.search(prompt) else prompt


def _parse(written: str, inside: str) -> Call:
    name, *rest = (part.strip() for part in inside.split(":"))
    given: dict[str, float] = {}
    for i, part in enumerate(rest):
        key, equals, value = part.rpartition("=")
        key = key if equals else _NAMES[i] if i < len(_NAMES) else ""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if key not in _NAMES or not abs(number) <= LARGEST:
            raise UserError(f"'{printable(written)}' in the prompt should be as <lora:name:0.8>, with a scale or two")
        given[key] = number
    if not name:
        raise UserError(f"'{printable(written)}' in the prompt names no LoRA; it should be as <lora:name:0.8>")
    text = given.get("te", 1.0)
    return Call(name, text, given.get("unet", text))


def find_lora(name: str, folder: Path) -> Path:
    """The file of a folder, or of a folder in it, that a call means: by its name, else by the name in its header.

    Raises:
        UserError: there is none; or several.
    """
    if not folder.is_dir():
        raise UserError(f"the prompt calls the LoRA '{name}', but there is no folder '{folder}'; --lora_dir names one")
    files = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    places = {path: path.relative_to(folder).with_suffix("").as_posix() for path in files}
    found = [path for path, place in places.items() if name in (place, path.stem, path.name)]
    found = [path for path in found if places[path] == name] or found
    if not found:
        found = [path for path in files if path.suffix == SUFFIXES[0] and _alias(path) == name]
    if not found:
        near = nearest(name, places.values()).replace("it has", "there are")
        raise UserError(f"there is no LoRA '{printable(name)}' in '{folder}'; {near}")
    if len(found) > 1:
        raise UserError(f"'{name}' means several LoRAs in '{folder}': {', '.join(places[path] for path in found)}")
    return found[0]


def _alias(path: Path) -> str | None:
    try:
        return read_metadata(path).get("ss_output_name")
    except UserError:
        return None

"""From a file, or a folder, to a ``LoraFile``: the family is told by the keys, never by the file's name."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ldm.checkpoint.formats import open_file
from ldm.checkpoint.lora import cloneofsimo, diffusers, kohya, peft_folder
from ldm.checkpoint.lora.file import Key, LoraFile, Parts, check_numbers, refuse_other_kinds, split_key
from ldm.util import UserError

_BUNDLED = re.compile(r"bundle_emb\.(.+?)\.(?:string_to_param\.\*|emb_params|clip_l)$")  # the web UI's words in a file
MODEL_KEYS = ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.", "conditioner.")


def read_lora(path: str | os.PathLike[str]) -> LoraFile:
    """What a LoRA file changes. Nothing that a pickle names is run; tensors stay mapped from the file.

    Args:
        path: safetensors or a pickle of any family of :mod:`ldm.checkpoint.lora`, or a folder of PEFT or diffusers.

    Raises:
        UserError: the file is missing, damaged or no LoRA; of a kind that is not read (OFT, GLoRA, IA3); or it has
            values that are no numbers.
    """
    path = Path(path)
    if not path.is_dir():
        return _read_file(path)
    files = [_read_file(*part) for part in peft_folder.parts_of_folder(path)]
    modules = {key: parts for file in files for key, parts in file.modules.items()}
    unknown = [key for file in files for key in file.unknown]
    return LoraFile(path, files[0].family, modules, {}, dict(files[0].metadata), unknown)


def _read_file(path: Path, settings: Mapping[str, Any] | None = None, network: str | None = None) -> LoraFile:
    contents = open_file(path)
    value = contents.value
    if isinstance(value, Mapping) and isinstance(value.get("state_dict"), Mapping):
        value = value["state_dict"]
    if isinstance(value, list | tuple):
        modules = cloneofsimo.read_pairs(value, path)
        check_numbers({f"{key.module}.{name}": t for key, ps in modules.items() for name, t in ps.items()}, path)
        return LoraFile(path, "cloneofsimo", modules)
    tensors = _tensors(value, path)
    metadata = dict(contents.metadata)
    if cloneofsimo.is_numbered(tensors):
        modules, words = cloneofsimo.read_numbered(tensors, metadata)
        unknown = [key for key in tensors if not cloneofsimo.is_numbered({key}) and key not in words]
        file = LoraFile(path, "cloneofsimo", modules, words, metadata, unknown)
    else:
        file = _read_named(path, tensors, metadata, network)
        by_network = diffusers.settings_in(metadata)
        if settings:
            by_network = {name: dict(settings) for name in file.networks}
        diffusers.set_alphas(file.modules, by_network)
    if not file.modules:
        first = next(iter(tensors))
        more = "; a whole model is given with --ckpt" if first.startswith(MODEL_KEYS) else ""
        raise UserError(f"'{path}' is no LoRA: none of its {len(tensors)} keys is of one, such as '{first}'{more}")
    return file


def _tensors(value: Any, path: Path) -> dict[str, Tensor]:
    """Raises UserError: there are none, or some are no numbers."""
    tensors = {str(k): v for k, v in value.items() if isinstance(v, Tensor)} if isinstance(value, Mapping) else {}
    if not tensors:
        raise UserError(f"'{path}' is no LoRA: there are no weights in it")
    refuse_other_kinds(tensors, path)
    parts = {key: tensor for key, tensor in tensors.items() if split_key(diffusers.from_processor(key)) or ":" in key}
    check_numbers(parts, path)
    return tensors


def _read_named(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str], network: str | None
) -> LoraFile:
    modules: dict[Key, Parts] = {}
    words: Parts = {}
    unknown: list[str] = []
    families: list[str] = []
    for key, value in tensors.items():
        bundled = _BUNDLED.match(key)
        found = split_key(diffusers.from_processor(key))
        if bundled is not None:
            words[bundled[1]] = value[None] if value.dim() == 1 else value
            continue
        if found is None:
            unknown.append(key)
            continue
        stem, part = found
        module = kohya.key_of(stem)
        families.append("kohya" if module else "peft" if ".lora_A" in key or ".lora_B" in key else "diffusers")
        if "lora_magnitude_vector" in key:
            value = value.flatten()  # one entry a row, whatever axes PEFT gives it
        modules.setdefault(module or diffusers.key_of(stem, network), {})[part] = value
    family = max(dict.fromkeys(families), key=families.count) if families else ""
    return LoraFile(path, family, modules, words, metadata, unknown)

"""A folder that PEFT wrote: ``adapter_config.json`` and the weights beside it, one network a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ldm.checkpoint.lora.file import TEXT, TEXT_2, UNET
from ldm.util import UserError, parse_json_object

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
SINGLE = ("pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin")  # what diffusers puts into a folder
NETWORKS = {"unet": UNET, "text_encoder": TEXT, "text_encoder_2": TEXT_2}


def parts_of_folder(folder: Path) -> list[tuple[Path, dict[str, Any], str | None]]:
    """The weight files of a folder, PEFT's settings for each, and the network where the folder's layout says it.

    Raises:
        UserError: the folder holds no LoRA, a configuration cannot be read, or it is of another kind of adapter.
    """
    single = next((folder / name for name in SINGLE if (folder / name).is_file()), None)
    if single is not None:
        return [(single, {}, None)]
    places = {folder: None, **{folder / name: network for name, network in NETWORKS.items()}}
    found = [_one(place, network) for place, network in places.items() if (place / CONFIG).is_file()]
    if not found:
        raise UserError(f"'{folder}' is a folder without {CONFIG} or {SINGLE[0]}, so it holds no LoRA")
    return found


def _one(folder: Path, network: str | None) -> tuple[Path, dict[str, Any], str | None]:
    try:
        text = (folder / CONFIG).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read '{folder / CONFIG}': {error}") from error
    settings = parse_json_object(text, f"'{folder / CONFIG}'")
    kind = settings.get("peft_type", "LORA")
    if kind not in ("LORA", "LOHA", "LOKR"):
        raise UserError(f"'{folder}' is an adapter of the kind {kind}, which is not read here; LoRA is")
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise UserError(f"'{folder}' has {CONFIG}, but no {WEIGHTS[0]} beside it")
    return weights, settings, network

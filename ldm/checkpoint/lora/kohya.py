"""kohya's spelling (sd-scripts, LyCORIS, kohya's SDXL files): ``lora_unet_<path with underscores>.<part>``."""

from __future__ import annotations

from ldm.checkpoint.lora.file import TEXT, TEXT_2, UNET, Key

PREFIXES = {
    "lora_unet_": UNET,
    "lora_te_": TEXT,
    "lora_te1_": TEXT,
    "lora_te2_": TEXT_2,
    "lycoris_": UNET,
}


def key_of(stem: str) -> Key | None:
    """The module that the beginning of a key names; None where it is spelled otherwise."""
    for prefix, network in PREFIXES.items():
        if stem.startswith(prefix):
            return Key(network, stem.removeprefix(prefix).replace(".", "_"))
    return None

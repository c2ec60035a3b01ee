"""Files of LoRA and its relatives: one module a format family, all read into one form."""

from ldm.checkpoint.lora.file import TEXT, TEXT_2, UNET, Key, LoraFile, Parts
from ldm.checkpoint.lora.reading import read_lora

__all__ = ["TEXT", "TEXT_2", "UNET", "Key", "LoraFile", "Parts", "read_lora"]

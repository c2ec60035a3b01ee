"""A diffusers model folder: its weights under this project's names, and the configuration that it describes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ldm.checkpoint.source import MappedTensors


def is_diffusers_folder(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is a folder that diffusers' ``save_pretrained`` made."""
    return (Path(path) / "model_index.json").is_file() or (Path(path) / "config.json").is_file()


def read_diffusers_folder(path: str | os.PathLike[str]) -> MappedTensors:
    """x"""
    raise NotImplementedError


def diffusers_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """x"""
    raise NotImplementedError

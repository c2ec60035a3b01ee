"""A model folder that brings its own vocabulary: paths in its configuration that mean files beside it."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

KEYS = ("tokenizer",)


def with_local_files(config: Mapping[str, Any], folder: str | os.PathLike[str]) -> dict[str, Any]:
    """A copy of a configuration in which a ``tokenizer`` that lies in ``folder`` is named by its full path.

    ``tokenizer: vocab.txt`` in models/ldm/tiny/config.yaml thereby means models/ldm/tiny/vocab.txt, wherever the
    command is run. A path that leads nowhere is also looked for in ``folder`` by its last part, so that the
    configuration which a model was trained from goes on working beside the model. Everything else stays: hub ids,
    absolute paths, and paths from the current folder.

    Args:
        config: any node of a configuration, a plain mapping or an OmegaConf one.
        folder: where the configuration or the checkpoint is.
    """
    plain: Any = OmegaConf.to_container(config) if OmegaConf.is_config(config) else copy.deepcopy(config)
    _resolve(plain, Path(folder))
    return plain


def _resolve(node: Any, folder: Path) -> None:
    if isinstance(node, list):
        for value in node:
            _resolve(value, folder)
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        if key in KEYS and isinstance(value, str):
            node[key] = _in_folder(value, folder)
        else:
            _resolve(value, folder)


def _in_folder(value: str, folder: Path) -> str:
    if (folder / value).exists():
        return str((folder / value).resolve())
    beside = folder / Path(value).name
    if not Path(value).exists() and beside.exists():
        return str(beside.resolve())
    return value

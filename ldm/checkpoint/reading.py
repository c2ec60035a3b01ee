"""From a file to a state dict: what wraps the weights is taken off, and EMA weights are put in place on request."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ldm.checkpoint.diffusers_folder import is_diffusers_folder, read_diffusers_folder
from ldm.checkpoint.formats import open_file
from ldm.checkpoint.pickle_machine import StandIn
from ldm.checkpoint.source import MappedTensors
from ldm.util import UserError

logger = logging.getLogger(__name__)

EMA_PREFIX = "model_ema."
_WRAPPERS = ("state_dict", "model_state_dict", "module", "model", "params_ema", "params")
_NAME_PARTS_OF_WRAPPERS = ("module.", "_forward_module.", "_orig_mod.")


def read_file(path: str | os.PathLike[str]) -> Any:
    """Everything a weight file holds, nested as it was saved: for embeddings and training checkpoints.

    Parameters come back as tensors, NumPy scalars as numbers, objects of unknown classes as inert
    :class:`~ldm.checkpoint.StandIn`.

    Raises:
        UserError: the file is missing, damaged, of another kind, or asks for something to be called.
    """
    return open_file(path).value


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The text fields of a safetensors file; empty for other formats.

    Raises:
        UserError: as :func:`read_file`.
    """
    return open_file(path, verify=False).metadata


def is_lightning_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Whether the file is a training checkpoint that Lightning can resume from, not weights alone.

    Raises:
        UserError: as :func:`read_file`.
    """
    value = open_file(path, verify=False).value
    return isinstance(value, dict) and {"pytorch-lightning_version", "state_dict", "global_step"} <= value.keys()


def read_state_dict(path: str | os.PathLike[str], ema: bool = False) -> dict[str, Tensor]:
    """The weights of a file or of a diffusers folder: name to CPU tensor, mapped from the file.

    Args:
        path: ``.ckpt``, ``.pt``, ``.bin``, ``.safetensors`` (told apart by content), or a diffusers model folder.
        ema: put the EMA weights (``model_ema.*``) in the place of the trained ones, if the file has them.

    Raises:
        UserError: as :func:`read_file`, or there are no weights in the file.
    """
    if Path(path).is_dir():
        if not is_diffusers_folder(path):
            raise UserError(f"'{path}' is a folder without model_index.json or config.json, so not a diffusers model")
        return read_diffusers_folder(path)
    contents = open_file(path)
    tensors = _strip_wrappers(_unwrap(contents.value, path))
    if ema:
        tensors = use_ema(tensors, str(path))
    return MappedTensors(tensors, [contents.source])


def _unwrap(value: Any, path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Down through ``{'state_dict': ...}`` and the like to the dictionary of tensors."""
    for _ in range(4):
        if not isinstance(value, Mapping):
            break
        inner = next((value[key] for key in _WRAPPERS if isinstance(value.get(key), Mapping)), None)
        if inner is None:
            tensors = {str(key): item for key, item in value.items() if isinstance(item, Tensor)}
            if tensors:
                return tensors
            break
        value = inner
    if isinstance(value, Mapping) and {"string_to_param", "emb_params"} & value.keys():
        raise UserError(f"'{path}' is a textual-inversion embedding, not the weights of a model")
    raise UserError(f"'{path}' holds no weights, but {_describe(value)}")


def _describe(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a dictionary with {', '.join(repr(str(key)) for key in list(value)[:4]) or 'nothing in it'}"
    if isinstance(value, StandIn):
        return f"a whole object of the class {value.kind}; save its state_dict() instead"
    return f"a {type(value).__name__}"


def _strip_wrappers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take off what DDP, DeepSpeed and torch.compile put into the names."""
    for part in _NAME_PARTS_OF_WRAPPERS:
        if all(key.startswith(part) for key in tensors):
            tensors = {key.removeprefix(part): value for key, value in tensors.items()}
    if any("_orig_mod." in key for key in tensors):
        tensors = {key.replace("_orig_mod.", ""): value for key, value in tensors.items()}
    return tensors


def ema_name(name: str) -> str:
    """Where a parameter's average is kept: ``model.a.b`` -> ``model_ema.ab`` (dots removed)."""
    return EMA_PREFIX + name.removeprefix("model.").replace(".", "")


def use_ema(tensors: Mapping[str, Tensor], origin: str = "the checkpoint") -> dict[str, Tensor]:
    """The same state dict with the EMA weights in place; unchanged, with a warning, if it holds none."""
    found = {key: ema_name(key) for key in tensors if not key.startswith(EMA_PREFIX) and ema_name(key) in tensors}
    if not found:
        logger.warning("%s holds no EMA weights; the trained ones are used", origin)
    return {key: tensors[found.get(key, key)] for key in tensors}

"""Files of what belongs to noise levels: safetensors whose tensors are named by timesteps, with the levels' indices."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ldm.checkpoint import CHECKSUM, checksum, is_whole, read_metadata, read_state_dict, save_state_dict
from ldm.util import UserError

LEVELS = "levels"  # the text field with the indices of levels


class CacheError(UserError):
    """A cache on disk that cannot be used: damaged, of another kind, or made of something else."""


def open_cache(
    path: str | os.PathLike[str], kind: str, expect: Mapping[str, Any] | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and text fields of a cache file of one kind.

    Raises:
        CacheError: the file is missing, truncated, holds something else, or was made of something else.
    """
    try:
        metadata = read_metadata(path)
        if metadata.get("kind") != kind:
            raise CacheError(f"'{path}' holds no {kind}")
        tensors = read_state_dict(path)
        if not is_whole(tensors, metadata):
            raise CacheError(f"the tensors in '{path}' are not those that were written")
    except CacheError:
        raise
    except UserError as error:
        raise CacheError(f"the cache cannot be used: {error}") from error
    for field, value in (expect or {}).items():
        if metadata.get(field) != str(value):
            raise CacheError(f"'{path}' was made with {field} {metadata.get(field)}, not {value}")
    return dict(tensors), metadata


def save_cache(tensors: Mapping[str, Tensor], path: str | os.PathLike[str], about: Mapping[str, str]) -> None:
    """Write a cache file, with a checksum that ``open_cache`` compares.

    Raises:
        UserError: a full disk or an unwritable folder; an older file survives.
    """
    save_state_dict(tensors, path, {**about, CHECKSUM: checksum(tensors)})


def level_names(told: Mapping[int, float]) -> dict[int, str]:
    """What the level of each index is called in a file: the number that the network was told, such as ``981``.

    Where several levels tell the same, their index follows it, as in ``981#3``.
    """
    levels = Counter(told.values())
    texts = {index: str(round(number) if number == round(number) else number) for index, number in told.items()}
    return {index: text if levels[told[index]] == 1 else f"{text}#{index}" for index, text in texts.items()}


def levels_field(names: Mapping[int, str]) -> str:
    """The text field that gives the index of each level's name."""
    return json.dumps({name: index for index, name in names.items()})


def read_levels(
    names: Iterable[str],
    metadata: Mapping[str, str],
    path: str | os.PathLike[str],
    otherwise: Callable[[Sequence[int]], Sequence[int]] = list,
) -> dict[str, tuple[int, float]]:
    """Index and number of each level, from the names that ``level_names`` gave.

    Args:
        otherwise: the indices of ascending timesteps in files of earlier versions, which have no field for them; those
            timesteps themselves, unless told differently.

    Raises:
        CacheError: a name is none of a level.
    """
    names = list(names)
    try:
        numbers = {name: _number(name.partition("#")[0]) for name in names}
        if LEVELS in metadata:
            indices = {name: int(index) for name, index in json.loads(metadata[LEVELS]).items()}
        else:
            names.sort(key=int)
            indices = dict(zip(names, otherwise([int(name) for name in names]), strict=True))
        return {name: (indices[name], numbers[name]) for name in names}
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise CacheError(f"'{path}' does not say of which noise levels it is: {brief(sorted(names))}") from error


def _number(text: str) -> float:
    return int(text) if text.removeprefix("-").isdecimal() else float(text)


def brief(values: Sequence[float | str], ends: int = 3) -> str:
    """Numbers or names as a list to read, without its middle if it is long."""
    texts = [value if isinstance(value, str) else f"{value:g}" for value in values]
    return ", ".join(texts if len(texts) <= 2 * ends else [*texts[:ends], "...", *texts[-ends:]])

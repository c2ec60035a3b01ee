"""Where a model came from, which it keeps: what it is called in records, and how it is usually asked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ldm.building.inference import inference_defaults


@dataclass(frozen=True)
class Origin:
    """Of a model that was read from files.

    Attributes:
        name: the last two parts of the path of its weights, such as ``tiny/model.safetensors``.
        inference: what the section ``inference:`` of its YAML says: height, width, steps, guidance_scale, sampler.
    """

    name: str = ""
    inference: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class HasOrigin(Protocol):
    """A model that keeps where it came from."""

    origin: Origin


@runtime_checkable
class HasPreciseParts(Protocol):
    """A model with parts that half precision overflows in: the beginnings of their keys."""

    @property
    def precise_parts(self) -> tuple[str, ...]: ...


@runtime_checkable
class StandsOn(Protocol):
    """A model whose checkpoints may hold only what was added to another, whose weights are in the file it names."""

    stands_on: str | None


def origin_of(config: Mapping[str, Any], ckpt: str | os.PathLike[str]) -> Origin:
    """What a configuration (a document, or only its ``model:`` node) and a checkpoint say of a model.

    Raises:
        ConfigError: the section ``inference:`` is no section, or a value in it has the wrong type.
    """
    return Origin("/".join(Path(ckpt).parts[-2:]), inference_defaults(config))

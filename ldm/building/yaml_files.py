"""Reading YAML files that may come from anywhere: limits first, then OmegaConf."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ldm.building.errors import ConfigError
from ldm.building.interpolation import check_interpolations
from ldm.building.trust import check_found
from ldm.shipped import here_or_shipped

MOST_BYTES = 1 << 20
MOST_DEPTH = 50
MOST_BITS = 1024  # of a whole number
MOST_VALUES = 100_000  # aliases counted as often as they are used
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_WRONG = (
    yaml.YAMLError, OmegaConfBaseException, OSError, ValueError, TypeError, AttributeError, LookupError, RuntimeError
)  # fmt: skip


def read_yaml(path: str | os.PathLike[str], named: bool = False) -> DictConfig:
    """The configuration in a YAML file: one in the working directory, or one that comes with the project.

    Args:
        path: the file.
        named: the user asked for this very file (``-b``, ``--config``), so that it may name classes of any package. One
            that was found, beside a checkpoint or in a run folder, may not; see ``ldm.building.trust``.

    Raises:
        ConfigError: the file is missing, is not YAML, holds no sections, or names what it may not.
    """
    document = _load(path)
    written = OmegaConf.to_container(document)
    check_interpolations(written, path)
    if not named:
        try:
            check_found(OmegaConf.to_container(document, resolve=True), path)
        except OmegaConfBaseException as error:
            raise ConfigError(f"'{path}' cannot be resolved: {_line(error)}") from error
    return document


def section(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The plain mapping ``name`` of a configuration, interpolations resolved; empty where there is none.

    Raises:
        ConfigError: it is something else than a mapping.
    """
    found = document.get(name)
    if found is None:
        return {}
    plain = OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found
    if not isinstance(plain, dict):
        raise ConfigError(f"the section '{name}' must hold settings by name ('steps: 50'), got '{str(plain)[:80]}'")
    return {str(key): value for key, value in plain.items()}


def _load(path: str | os.PathLike[str]) -> DictConfig:
    try:
        file = here_or_shipped(path)
        if not file.is_file():
            raise ConfigError(f"there is no configuration file '{path}'")
        data = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the configuration '{path}': {error.strerror or error}") from error
    if len(data) > MOST_BYTES:
        raise ConfigError(f"'{path}' has {len(data)} bytes; a configuration has at most {MOST_BYTES}")
    try:
        text = data.decode("utf-8-sig")
        _check_extent(text)
        loaded = OmegaConf.load(io.StringIO(text))
    except _NoConfigurationError as error:
        raise ConfigError(f"'{path}' is no configuration: {error}") from error
    except _WRONG as error:
        raise ConfigError(f"'{path}' is not readable as YAML: {_line(error)}") from error
    if _longest_number(OmegaConf.to_container(loaded)) > MOST_BITS:
        raise ConfigError(f"'{path}' holds a whole number of hundreds of digits")
    assert isinstance(loaded, DictConfig)  # its first event was the start of a mapping
    return loaded


class _NoConfigurationError(Exception):
    """A document of another shape, or one that would take more room than any configuration needs."""


def _check_extent(text: str) -> None:
    """Depth and number of values, told from the parser's events alone: nothing is built yet."""
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []  # anchor, values before it
    total = 0
    for event in _events(text):
        if isinstance(event, yaml.AliasEvent):
            total += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.NodeEvent):
            if total == 0 and not isinstance(event, yaml.MappingStartEvent) and getattr(event, "value", True):
                raise _NoConfigurationError("it must hold sections such as 'model:' and 'data:'")
            total += 1
            if isinstance(event, yaml.CollectionStartEvent):
                open_nodes.append((event.anchor, total))
            elif event.anchor is not None:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor is not None:
                sizes[anchor] = total - before + 1
        if len(open_nodes) > MOST_DEPTH:
            raise _NoConfigurationError(f"it is nested more than {MOST_DEPTH} levels deep")
        if total > MOST_VALUES:
            raise _NoConfigurationError(f"it holds more than {MOST_VALUES} values")


def _longest_number(config: Any) -> int:
    """Bits of the longest whole number, keys included; Python cannot even print those of thousands of digits."""
    if isinstance(config, dict):
        return max((_longest_number(part) for pair in config.items() for part in pair), default=0)
    if isinstance(config, list):
        return max(map(_longest_number, config), default=0)
    return config.bit_length() if isinstance(config, int) else 0


def _events(text: str) -> Iterator[Any]:
    return yaml.parse(text, Loader=_Loader)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]

"""From YAML files and command-line changes to one resolved configuration."""

from __future__ import annotations

import argparse
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ldm.util import ConfigError, read_yaml

PERSONALIZATION = "model.params.personalization_config.params"


def read_config(paths: list[str], changes: list[str]) -> DictConfig:
    """Merge YAMLs left to right, then ``a.b=c`` changes.

    Raises:
        ConfigError: a file that is missing or is no YAML mapping, or a change that cannot be read.
    """
    parts = [read_yaml(path) for path in paths]
    try:
        merged = OmegaConf.merge(*parts, OmegaConf.from_dotlist(changes))
        OmegaConf.resolve(merged)
    except (OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(f"the configurations do not fit together: {_first_line(error)}") from error
    assert isinstance(merged, DictConfig)
    return merged


def require(config: DictConfig, section: str) -> Any:
    """A section that must be there.

    Raises:
        ConfigError: it is not.
    """
    node = OmegaConf.select(config, section)
    if node is None:
        raise ConfigError(f"the configuration has no section '{section}'")
    return node


def apply_personalization(config: DictConfig, options: argparse.Namespace) -> None:
    """Write --data_root, --init_word, --placeholder_string and --embedding_manager_ckpt into the configuration.

    Raises:
        ConfigError: the configuration has no place for one of them.
    """
    if options.data_root:
        for name in ("train", "validation"):
            if OmegaConf.select(config, f"data.params.{name}") is not None:
                OmegaConf.update(config, f"data.params.{name}.params.data_root", options.data_root, force_add=True)
    values = {
        "initializer_words": [options.init_word] if options.init_word else None,
        "placeholder_strings": [options.placeholder_string] if options.placeholder_string else None,
        "embedding_manager_ckpt": options.embedding_manager_ckpt or None,
    }
    for name, value in values.items():
        if value is None:
            continue
        if OmegaConf.select(config, PERSONALIZATION) is None:
            raise ConfigError(f"the configuration has no section '{PERSONALIZATION}' to put {name} into")
        OmegaConf.update(config, f"{PERSONALIZATION}.{name}", value, merge=False, force_add=True)


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]

"""What a configuration asks of Lightning's Trainer, in today's names and types: known before anything is built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf

from ldm.building.values import hints_of, misfit
from ldm.training.legacy import translate_trainer
from ldm.training.precision import affordable
from ldm.util import ConfigError

ACCUMULATION = "accumulate_grad_batches"


def trainer_settings(config: DictConfig, lightning: DictConfig) -> dict[str, Any]:
    """Arguments of the Trainer from the ``lightning:`` section.

    Raises:
        ConfigError: an option that there is not, or a value of a wrong type.
    """
    asked = section(lightning, "trainer")
    strategy = lightning.get("strategy")
    if strategy is not None:  # as the code of Stable Diffusion XL has it
        plain = OmegaConf.to_container(strategy, resolve=True) if OmegaConf.is_config(strategy) else strategy
        asked = {"strategy": plain, **asked}
    settings = affordable(checked_types(translate_trainer(asked)))
    # a LoRA also lies on those layers of a text encoder that are above the one that is read
    may_be_unused = lightning.get("find_unused_parameters") or OmegaConf.select(config, "model.params.lora_config")
    if may_be_unused and settings.get("strategy", "ddp" if lightning.get("find_unused_parameters") else "") == "ddp":
        settings["strategy"] = "ddp_find_unused_parameters_true"
    return settings


def section(lightning: DictConfig, name: str) -> dict[str, Any]:
    """A part of the ``lightning:`` section that has further parts by name; empty where there is none.

    Raises:
        ConfigError: it is a number, a word or a list.
    """
    node = lightning.get(name)
    found: Any = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    if not isinstance(found, dict | None):
        raise ConfigError(f"lightning.{name} is {str(found)[:80]!r}; it must be settings by name")
    return found or {}


def checked_types(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings; whole numbers that were written with a point or an exponent (1e5) as whole numbers.

    ``null`` stands for what the Trainer does by itself, unless it is a value of its own (``check_val_every_n_epoch``).

    Raises:
        ConfigError: a value that its parameter does not take; it says which, and what would do.
    """
    hints = hints_of(pl.Trainer.__init__)
    said = {name: value for name, value in settings.items() if value is not None or not misfit(None, hints[name])}
    return {name: _checked(name, value, hints[name]) for name, value in said.items()}


def _checked(name: str, value: Any, hint: Any) -> Any:
    if name == ACCUMULATION and isinstance(value, dict):
        return {_count(name, epoch, least=0): _count(name, number) for epoch, number in value.items()}
    wanted = misfit(value, hint)
    if wanted and isinstance(value, float) and value.is_integer() and not misfit(int(value), hint):
        return int(value)
    if wanted:
        raise ConfigError(f"lightning.trainer.{name} is {str(value)[:80]!r}; it must be {wanted}")
    return _count(name, value) if name == ACCUMULATION else value


def _count(name: str, value: Any, least: int = 1) -> int:
    """A number of batches (1 or more), or of an epoch."""
    try:
        count = int(value)
    except (TypeError, ValueError):
        count = least - 1
    if count < least:
        raise ConfigError(f"lightning.trainer.{name}: '{str(value)[:80]}' must be a whole number from {least} on")
    return count

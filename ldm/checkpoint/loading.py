"""From weights to a module that holds them: on the meta device first, so that a model costs its size once."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import Tensor, nn

from ldm.building.kinds import MODULE
from ldm.checkpoint.diffusers_folder import diffusers_config, is_diffusers_folder
from ldm.checkpoint.fit import (
    LoadReport,
    check_fit,
    keep_precise_schedule,
    make_report,
    match_conditioner,
    match_text_model,
)
from ldm.checkpoint.materialise import materialise
from ldm.checkpoint.origin import HasOrigin, HasPreciseParts, StandsOn, origin_of
from ldm.checkpoint.reading import EMA_PREFIX, read_state_dict, use_ema
from ldm.checkpoint.source import MappedFile, MappedTensors
from ldm.checkpoint.unfilled import without_values
from ldm.shipped import here_or_shipped
from ldm.util import ConfigError, UserError, instantiate_from_config, printable

logger = logging.getLogger(__name__)

# of a model that is to learn; the base has none
LEARNED = ("personalization_config", "lora_config", "reg_weight", "reg_target", "prior_loss_weight", "prior_every")


def load_weights(
    module: nn.Module,
    weights: str | os.PathLike[str] | Mapping[str, Tensor],
    *,
    ema: bool = False,
    prefix: str = "",
    ignore: Sequence[str] = (),
    fresh: Sequence[str] = (),
    strict: bool = False,
    dtype: torch.dtype | None = None,
    precise: Sequence[str] = (),
    device: torch.device | str | None = None,
) -> LoadReport:
    """Put weights into a module; one that is on the meta device takes the (mapped) tensors themselves.

    Args:
        module: real or on the meta device.
        weights: a file, a diffusers folder or a state dict.
        ema: use the EMA weights, if there are any.
        prefix: take only the keys below it, without it (``first_stage_model.``).
        ignore: beginnings of keys that are not read from the file, and may be missing.
        fresh: beginnings of keys that nobody misses where the file has none of them: of what has yet to be learned.
        strict: missing and unexpected keys are an error; otherwise they are reported and logged.
        dtype: of the parameters; None keeps what the constructor chose. Buffers always keep theirs.
        precise: beginnings of keys of parameters that keep it as well.
        device: where a module from the meta device goes; None is the CPU.

    Raises:
        UserError: shapes do not match, the weights are of another model, or a parameter would stay without values.
    """
    origin = "the given state dict" if isinstance(weights, Mapping) else f"'{os.fspath(weights)}'"
    source = weights if isinstance(weights, Mapping) else read_state_dict(weights)
    given = use_ema(source, origin) if ema else dict(source)
    given = {key.removeprefix(prefix): value for key, value in given.items() if key.startswith(prefix)}
    given = {key: value for key, value in given.items() if not key.startswith(tuple(ignore))}
    if not given:
        raise UserError(f"{origin} holds nothing below '{prefix}'")
    files = source.sources if isinstance(source, MappedTensors) else []
    del source  # what is converted below can then be freed one by one

    expected = module.state_dict(keep_vars=True)
    given = keep_precise_schedule(match_text_model(match_conditioner(given, expected), expected), expected)
    unasked = (*ignore, *(start for start in fresh if not any(key.startswith(start) for key in given)))
    wanted = {key: value for key, value in expected.items() if not key.startswith(unasked)}
    report = make_report(given, wanted)
    check_fit(origin, given, wanted, report, strict)
    for words, keys in (("missing", report.missing), ("unexpected", report.unexpected)):
        if keys:
            logger.warning("%s: %d keys %s, first: %s", origin, len(keys), words, printable(", ".join(keys[:5])))
    given = {key: value for key, value in given.items() if key in expected}
    _put(module, given, expected, Precision(dtype, tuple(precise)), torch.device(device or "cpu"), files)
    return report


@dataclass(frozen=True)
class Precision:
    """Which precision parameters get: ``dtype``, where that is not None, but for keys that begin as in ``precise``."""

    dtype: torch.dtype | None
    precise: tuple[str, ...] = ()

    def of(self, key: str, target: Tensor) -> torch.dtype:
        """The precision of what ``key`` names; buffers, and numbers that are no fractions, keep theirs."""
        changes = isinstance(target, nn.Parameter) and target.is_floating_point()
        return self.dtype if self.dtype is not None and changes and not key.startswith(self.precise) else target.dtype


def _put(
    module: nn.Module,
    given: dict[str, Tensor],
    expected: Mapping[str, Tensor],
    precision: Precision,
    place: torch.device,
    files: list[MappedFile],
) -> None:
    """Convert tensor by tensor, taking each out of ``given`` and giving back its pages; hand them to the module."""
    was_meta = any(value.is_meta for value in [*module.parameters(), *module.buffers()])
    tensors = {}
    for key in list(given):
        tensor = given.pop(key)
        where = place if expected[key].is_meta else expected[key].device
        tensors[key] = tensor.to(where, precision.of(key, expected[key]))
        if tensors[key].data_ptr() != tensor.data_ptr():
            for file in files:
                file.release(tensor)
    module.load_state_dict(tensors, strict=False, assign=was_meta)
    if was_meta:
        materialise(module, place)
        _finish(module, precision, place)


def _finish(module: nn.Module, precision: Precision, place: torch.device) -> None:
    """Bring along what was not in the file: computed buffers, and parameters that were made anew."""
    for key, parameter in module.named_parameters():
        if parameter.dtype != precision.of(key, parameter):
            parameter.data = parameter.data.to(precision.of(key, parameter))
    module.to(place)


def load_model(
    config: Mapping[str, Any] | None,
    ckpt: str | os.PathLike[str],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    ema: bool = False,
    ignore: Sequence[str] = (),
) -> nn.Module:
    """Build the model that a configuration describes, with a checkpoint's weights, in eval mode.

    A diffusion model keeps the document's ``inference:`` section and the checkpoint's name as its ``origin``.

    Args:
        config: a ``{target, params}`` node or a document with a ``model:`` node; None for a diffusers folder, which
            describes itself. ``ckpt_path`` entries inside are not read: the checkpoint has everything.
        ckpt: a file of any format, or a diffusers folder.
        device: where the model goes.
        dtype: of the parameters; None keeps what the configuration says (float32). Buffers keep theirs, and so do the
            parts of which the model says that they need it.
        ema: use the EMA weights, if there are any.
        ignore: beginnings of keys that stay as the constructor or their class initialises them.

    Raises:
        ConfigError: the configuration has no model, or does not describe one.
        UserError: as :func:`read_state_dict` and :func:`load_weights`.
    """
    if config is None:
        if not is_diffusers_folder(ckpt):
            raise ConfigError(f"'{os.fspath(ckpt)}' needs a configuration: only a diffusers folder describes itself")
        config = diffusers_config(ckpt)
    node = without_checkpoints(model_node(config))
    with without_values():
        module = instantiate_from_config(node, MODULE)
    if not isinstance(module, nn.Module):
        raise ConfigError(f"target '{node['target']}' makes a {type(module).__name__}, not a model")
    weights = with_what_it_stands_on(module, ckpt, ema)
    precise = module.precise_parts if isinstance(module, HasPreciseParts) else ()
    load_weights(module, weights, ema=ema, ignore=ignore, dtype=dtype, precise=precise, device=device)
    if isinstance(module, HasOrigin):
        module.origin = origin_of(config, ckpt)
    return module.eval()


def with_what_it_stands_on(
    module: nn.Module, ckpt: str | os.PathLike[str], ema: bool = False
) -> str | os.PathLike[str] | dict[str, Tensor]:
    """A checkpoint as it is; or, of a model that stands on another's weights, both, that one's without its averages.

    Raises:
        UserError: as :func:`read_state_dict`.
    """
    below = module.stands_on if isinstance(module, StandsOn) else None
    if below is None:
        return ckpt
    own = read_state_dict(ckpt)
    if own.keys() >= dict(module.named_parameters()).keys():
        return ckpt
    of_pictures = read_state_dict(here_or_shipped(below), ema=ema)
    return {**{key: value for key, value in of_pictures.items() if not key.startswith(EMA_PREFIX)}, **own}


def model_node(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The ``{target, params}`` node of a configuration: itself, or what lies under ``model:``.

    Raises:
        ConfigError: there is neither.
    """
    node = config if "target" in config else config.get("model")
    if not isinstance(node, Mapping) or "target" not in node:
        sections = ", ".join(map(str, config)) or "nothing"
        raise ConfigError(f"the configuration has no section 'model' with a 'target'; it has: {sections}")
    return node


def without_learning(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """A copy of a configuration without what a run learns beside the model, whose keys are then those of its base."""
    copied = copy.deepcopy(node)
    for name in LEARNED:
        (copied.get("params") or {}).pop(name, None)
    return copied


def without_checkpoints(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """A copy of a configuration in which every ``ckpt_path`` is null, however deep."""
    copied = copy.deepcopy(node)
    if isinstance(copied, DictConfig):
        OmegaConf.set_readonly(copied, False)
    _clear_checkpoints(copied)
    return copied


def _clear_checkpoints(node: Any) -> None:
    if isinstance(node, (dict, DictConfig)):
        for key in list(node):
            if key == "ckpt_path":
                node[key] = None
            elif not (isinstance(node, DictConfig) and OmegaConf.is_missing(node, key)):
                _clear_checkpoints(node[key])
    elif isinstance(node, (list, ListConfig)):
        for item in node:
            _clear_checkpoints(item)

"""A model's corrector, which its YAML names as ``inference.corrector``; see ``ldm.modules.corrector``."""

from __future__ import annotations

import logging
import weakref
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldm.checkpoint import load_weights, read_state_dict, save_state_dict
from ldm.modules.corrector import PATCH, Corrector
from ldm.modules.cpu.packed_weight import values_of
from ldm.util import UserError
from ldm.workflows.studio import Studio

log = logging.getLogger(__name__)

NETWORK = "network"  # key of what tells the network whose errors were learned
_opened: weakref.WeakKeyDictionary[Any, tuple[str, Corrector | None]] = weakref.WeakKeyDictionary()


def corrector_for(studio: Studio) -> Corrector | None:
    """The corrector of a studio's model, on its device; None where its YAML names none, or one for other weights.

    Raises:
        UserError: there is no such file, or it is of no corrector.
    """
    path = studio.inference.get("corrector")
    if path is None:
        return None
    known = _opened.get(studio.model)
    if known is None or known[0] != path:
        known = _opened[studio.model] = (path, _opened_for(studio, path))
    return known[1]


def _opened_for(studio: Studio, path: str) -> Corrector | None:
    weights = read_state_dict(path)
    marks = marks_of(studio.model.model.diffusion_model)
    learned = weights.pop(NETWORK, torch.empty(0))
    corrector = corrector_of(weights, path)
    if learned.shape != marks.shape or not torch.allclose(learned.float(), marks, rtol=1e-2, atol=1e-4):
        log.warning("'%s' was trained for other weights than those of '%s': it is not used", path, studio.name)
        return None
    return corrector.to(studio.device)


def corrector_of(weights: dict[str, Tensor], name: str) -> Corrector:
    """The corrector that a state dict is of, in float32.

    Raises:
        UserError: it is of none.
    """
    try:
        width, inputs = weights["first.0.weight"].shape
        channels = len(weights["last.bias"]) // PATCH**2
    except (KeyError, ValueError) as error:
        raise UserError(f"'{name}' has no corrector: configs/tiny/corrector.yaml trains one") from error
    depth = sum(key.startswith("layers.") and key.endswith(".1.bias") for key in weights)
    corrector = Corrector(inputs, channels, width, depth)
    load_weights(corrector, weights, strict=True)
    return corrector.eval().requires_grad_(False)


def marks_of(network: nn.Module) -> Tensor:
    """The middle value of each weight of a network in the order of their names, [n]: what tells it from others."""
    weights = sorted(network.state_dict(keep_vars=True).items())
    values = (values_of(weight).detach().reshape(-1) for _, weight in weights)
    return torch.stack([value[len(value) // 2].float().cpu() for value in values])


def save_corrector(corrector: Corrector, network: nn.Module, path: Path) -> None:
    """Write a corrector, its layers in bfloat16, with what tells the network for which it was trained.

    Raises:
        UserError: the file cannot be written.
    """
    layers = {name for name, _ in corrector.named_parameters()}
    weights = {name: value.bfloat16() if name in layers else value for name, value in corrector.state_dict().items()}
    save_state_dict({**weights, NETWORK: marks_of(network)}, path)

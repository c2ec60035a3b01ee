"""What puts right a model's own pictures: its corrector and its retoucher, which its YAML names.

``inference.corrector`` is of latents (``ldm.modules.corrector``) and for one UNet, ``inference.retoucher`` of pixels
(``ldm.modules.retoucher``) and for one decoder.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ldm.checkpoint import load_weights, read_state_dict, save_state_dict
from ldm.checkpoint.byte_weights import in_bytes
from ldm.checkpoint.unfilled import without_values
from ldm.finite import broken_weight
from ldm.modules.corrector import PATCH, Corrector
from ldm.modules.cpu.packed_weight import values_of
from ldm.modules.retoucher import AROUND, Retoucher
from ldm.util import UserError
from ldm.workflows.studio import Studio

log = logging.getLogger(__name__)

Weights = dict[str, Tensor]
Part = TypeVar("Part", Corrector, Retoucher)

NETWORK = "network"  # key of what tells the network for which another was trained
_opened: weakref.WeakKeyDictionary[Any, dict[tuple[str, str], Any]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Correction:
    """What puts right latents that have settled, and if there is one, what puts right their pictures."""

    corrector: Corrector
    retoucher: Retoucher | None = None

    @property
    def about(self) -> dict[str, bool]:
        """What a picture's parameters say of it."""
        return {"corrected": True} | ({} if self.retoucher is None else {"retouched": True})


def correction_for(studio: Studio, size: tuple[int, int] = (PATCH, PATCH)) -> Correction | None:
    """What a studio's model has of both, on its device; None without a corrector, for others are not retouched.

    None as well for latents of a ``size`` that is not made of whole patches.

    Raises:
        UserError: a file that the YAML names is not there, or is of something else.
    """
    if any(side % PATCH for side in size):
        return None
    corrector = _part(studio, "corrector", corrector_of, lambda model: model.model.diffusion_model)
    if corrector is None:
        return None
    return Correction(corrector, _part(studio, "retoucher", retoucher_of, decoder_of))


def decoder_of(model: Any) -> nn.Module:
    """The network that draws a model's pictures."""
    decoder: nn.Module = model.first_stage_model.decoder
    return decoder


def _part(
    studio: Studio, what: str, build: Callable[[Weights, str], Part], network: Callable[[Any], nn.Module]
) -> Part | None:
    """What the YAML names as ``inference.WHAT``; None where it names none, or one for another network."""
    path = studio.inference.get(what)
    if path is None:
        return None
    known: dict[tuple[str, str], Any] = _opened.setdefault(studio.model, {})
    if (what, path) not in known:
        weights = read_state_dict(path)
        learned, part = weights.pop(NETWORK, torch.empty(0)), build(weights, path)
        if is_of(learned, network(studio.model)):
            _check_fit(part, studio.model, path)
            known[what, path] = part.to(studio.device)
        else:
            log.warning("'%s' was trained for other weights than those of '%s': it is not used", path, studio.name)
            known[what, path] = None
    found: Part | None = known[what, path]
    return found


def _check_fit(part: Corrector | Retoucher, model: Any, name: str) -> None:
    fits = part.channels == model.channels
    if isinstance(part, Retoucher):
        fits = fits and part.side == PATCH * model.first_stage_model.factor
    if not fits:
        raise UserError(f"'{name}' is damaged: its patches are not as large as those of the model that it names")


def corrector_of(weights: Weights, name: str) -> Corrector:
    """The corrector that a state dict is of, in float32.

    Raises:
        UserError: it is of none, or a damaged one.
    """
    try:
        width, inputs = len(weights["first.0.weight"]), len(weights["norm.running_mean"])
        channels = len(weights["last.bias"]) // PATCH**2
    except (KeyError, TypeError) as error:
        raise UserError(f"'{name}' has no corrector: configs/tiny/corrector.yaml trains one") from error
    with without_values():
        corrector = Corrector(inputs, channels, width, depth_of(weights))
    return _filled(corrector, weights, name)


def retoucher_of(weights: Weights, name: str) -> Retoucher:
    """The retoucher that a state dict is of, in float32.

    Raises:
        UserError: it is of none, or a damaged one.
    """
    try:
        width, inputs = weights["first.0.weight"].shape
        pixels = len(weights["last.bias"])
        side = round((pixels / 3) ** 0.5)
        channels = (inputs - pixels) // AROUND**2
        if "norm.running_mean" in weights or 3 * side**2 != pixels or channels < 1:
            raise ValueError
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"'{name}' has no retoucher: configs/tiny/retoucher.yaml trains one") from error
    with without_values():
        retoucher = Retoucher(channels, side, width, depth_of(weights))
    return _filled(retoucher, weights, name)


def depth_of(weights: Weights) -> int:
    """How many layers a state dict of either has behind the first."""
    return sum(key.startswith("layers.") and key.endswith(".1.bias") for key in weights)


def _filled(part: Part, weights: Weights, name: str) -> Part:
    load_weights(part, weights, strict=True)
    if broken := broken_weight(part):
        raise UserError(f"'{name}' is damaged: '{broken}' holds a value that is not finite (NaN or inf)")
    return part.eval().requires_grad_(False)


def is_of(learned: Tensor, network: nn.Module) -> bool:
    """Whether a file's marks are those of a network, at whatever precision it is held."""
    marks = marks_of(network)
    return learned.shape == marks.shape and torch.allclose(learned.float(), marks, rtol=1e-2, atol=1e-4)


def marks_of(network: nn.Module) -> Tensor:
    """The middle value of each weight of a network in the order of their names, [n]: what tells it from others."""
    weights = sorted(network.state_dict(keep_vars=True).items())
    values = (values_of(weight).detach().reshape(-1) for _, weight in weights)
    return torch.stack([value[len(value) // 2].float().cpu() for value in values])


def save_for(network: nn.Module, part: Corrector | Retoucher, path: Path) -> None:
    """Write either, its matrices in bytes, its vectors in bfloat16, with what tells the network it was trained for.

    Raises:
        UserError: the file cannot be written.
    """
    vectors = {name for name, value in part.named_parameters() if value.dim() < 2}
    weights = {name: value.bfloat16() if name in vectors else value for name, value in part.state_dict().items()}
    save_state_dict({**in_bytes(weights), NETWORK: marks_of(network)}, path)

"""A LoRA of any kind as an addition: the changes of its file are added to a model's weights, and taken off again."""

from __future__ import annotations

import functools
import logging
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldm.additions.base import Addition, Undo, edit_weights
from ldm.additions.lora.kinds import DoraRule, bias_difference, difference, kind_of
from ldm.additions.lora.names import Place, numbered_places, places
from ldm.additions.lora.scales import Scales
from ldm.checkpoint.lora import TEXT, UNET, Key, LoraFile, Parts, read_lora
from ldm.checkpoint.lora.cloneofsimo import ANY
from ldm.util import UserError, printable

log = logging.getLogger(__name__)

MODELS_OF_WIDTH = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 1280: "LDM text-to-image", 2048: "SDXL"}
INTERPOLATE, PRODUCER = DORA_RULES = ("interpolate", "producer")
SHOWN = 3  # names of modules in a message


@dataclass(frozen=True)
class Module:
    """One module of a file, and the weight that it changes."""

    key: Key
    parts: Parts
    place: Place


@dataclass(frozen=True)
class Edit:
    """The change of one weight, or of some of its rows, by one module of one file."""

    module: Module
    scale: float
    dora: DoraRule
    origin: Path

    def of(self, weight: Tensor) -> Tensor | None:
        """The change, for the untouched weight (or those rows of it), in float32."""
        try:
            return difference(weight, self.module.parts, self.scale, self.dora)
        except UserError as error:
            raise UserError(f"'{self.origin}': '{printable(str(self.module.key))}': {error}") from error


class Lora(Addition):
    """What a LoRA file changes on a model. It does not learn; what learns is ``ldm.additions.lora.learning``.

    Args:
        file: what was read.
        modules: its modules that the model has.
        scales: how much of it, by part of the model; ``attach`` multiplies them.
        dora: how a scale acts with DoRA; None: by interpolation, so that 0 is the base model.
    """

    file_name = "lora"

    def __init__(
        self, file: LoraFile, modules: Sequence[Module], scales: Scales | None = None, dora: DoraRule = "interpolate"
    ) -> None:
        self.file = file
        self.modules = list(modules)
        self.scales = scales or Scales()
        self.dora = dora

    @classmethod
    def read(
        cls, path: str | os.PathLike[str], model: Any, scales: Scales | None = None, dora: str = INTERPOLATE
    ) -> Lora:
        """The LoRA of a file, for a model, which is not changed. What matches nothing is reported in the log.

        Args:
            dora: ``interpolate``, or ``producer`` for what the program that wrote the file does at other scales than 1.

        Raises:
            UserError: as ``ldm.checkpoint.lora.read_lora``; the file is for another model; or a scale's pattern is of
                no weight that the file changes.
        """
        file = read_lora(path)
        modules, missing = matched(file, places(model))
        check_model(file, modules, model)
        if missing or file.unknown:
            log.warning("%s", report_missing(file, missing))
        if dora not in DORA_RULES:
            raise UserError(f"unknown rule '{dora}' for scales of DoRA; known: {', '.join(DORA_RULES)}")
        theirs: DoraRule = "lycoris" if file.family == "kohya" else "peft"
        lora = cls(file, modules, scales, theirs if dora == PRODUCER else "interpolate")
        lora.check_scales()
        return lora

    def scaled(self, scales: Scales) -> Lora:
        """The same file at other scales; nothing is read again."""
        return Lora(self.file, self.modules, scales, self.dora)

    def check_scales(self) -> None:
        """Raises UserError: a scale is for what the file does not change."""
        nowhere = self.scales.unmatched({module.place.weight for module in self.modules})
        if nowhere is not None:
            raise UserError(f"'{self.file.path}' changes nothing in '{nowhere}'; its scale would have no effect")

    @property
    def label(self) -> str:
        """The file and its scale, for records."""
        return f"{self.file.path.name}={self.scales}"

    def learned(self) -> Sequence[nn.Parameter]:
        return []

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
        raise UserError(f"'{self.file.path}' was read, not learned; copy it, or convert it with scripts.convert_lora")

    def attach(self, model: Any, scale: float = 1.0) -> Undo:
        return self.attach_together(model, [(self, scale)])

    @classmethod
    def attach_together(cls, model: Any, additions: Sequence[tuple[Lora, float]]) -> Undo:
        """Each file's change is computed from the weights as they are now, then all are added: DoRA does not add up."""
        return edit_weights(model, edits_of(model, additions))


def edits_of(model: Any, additions: Sequence[tuple[Lora, float]]) -> dict[str, Any]:
    """For ``edit_weights``: parameter -> what makes its new values of the old."""
    of_weight: dict[str, list[Edit]] = defaultdict(list)
    of_bias: dict[str, list[tuple[Place, Tensor]]] = defaultdict(list)
    parameters = {name for name, _ in model.named_parameters()}
    for lora, scale in additions:
        for module in lora.modules:
            amount = scale * lora.scales.at(module.place.weight)
            if amount == 0:
                continue
            of_weight[module.place.weight].append(Edit(module, amount, lora.dora, lora.file.path))
            bias = bias_difference(module.parts, amount)
            if bias is not None:
                if module.place.bias not in parameters:
                    raise UserError(f"'{lora.file.path}' changes the bias of '{module.key}', which the model lacks")
                of_bias[module.place.bias].append((module.place, bias))
    return {
        **{name: functools.partial(_new_weight, edits=edits) for name, edits in of_weight.items()},
        **{name: functools.partial(_new_bias, changes=changes) for name, changes in of_bias.items()},
    }


def _new_weight(weight: Tensor, edits: Sequence[Edit]) -> Tensor:
    total = weight.float().clone()
    for edit in edits:
        rows = slice(None) if edit.module.place.rows is None else slice(*edit.module.place.rows)
        change = edit.of(weight[rows])
        if change is not None:
            total[rows] += change
    return total


def _new_bias(bias: Tensor, changes: Sequence[tuple[Place, Tensor]]) -> Tensor:
    total = bias.float().clone()
    for place, change in changes:
        rows = slice(None) if place.rows is None else slice(*place.rows)
        if change.numel() != total[rows].numel():
            raise UserError(f"a LoRA's bias for '{place.bias}' has {change.numel()} entries, not {total[rows].numel()}")
        total[rows] += change.flatten().to(total.device)
    return total


def matched(file: LoraFile, table: Mapping[Key, Place]) -> tuple[list[Module], list[Key]]:
    """A file's modules with the weights that they mean, and those that mean none.

    Raises:
        UserError: the pairs of a file without names are of another number than the model's layers.
    """
    if any(key.module.isdecimal() for key in file.modules):
        return _matched_by_number(file, table), []
    found, missing = [], []
    for key, parts in file.modules.items():
        if key in table:
            found.append(Module(key, parts, table[key]))
        else:
            missing.append(key)
    return found, missing


def _matched_by_number(file: LoraFile, table: Mapping[Key, Place]) -> list[Module]:
    found: list[Module] = []
    for network in file.networks:
        pairs = {int(key.module): (key, parts) for key, parts in file.modules.items() if key.network == network}
        choices = [numbered_places(table, name) for name in ([UNET, TEXT] if network == ANY else [network])]
        fitting = next((choice for choice in choices if len(choice) == len(pairs)), None)
        if fitting is None or set(pairs) != set(range(len(pairs))):
            counts = " or ".join(str(len(choice)) for choice in choices)
            raise UserError(
                f"'{file.path}' has {len(pairs)} numbered pairs, but the model {counts} layers that they could be for"
            )
        found += [Module(*pairs[i], place) for i, place in enumerate(fitting)]
    return found


def check_model(file: LoraFile, modules: Sequence[Module], model: Any) -> None:
    """Raises UserError: the file was made for another model, as the width of its cross-attention says, or its names."""
    shapes = {name: value.shape for name, value in model.named_parameters()}
    for module in modules:
        parts = module.parts
        kind_of_module = _checked_kind(file, module)
        if kind_of_module != "LoRA" or not module.place.weight.endswith("attn2.to_k.weight"):
            continue
        made_for, here = parts["lora_down"].shape[1], shapes[module.place.weight][1]
        if made_for != here:
            theirs, ours = called_by_width(made_for), called_by_width(here)
            raise UserError(f"'{file.path}' was made for {theirs}, but the loaded model is {ours}")
    if not modules:
        some = ", ".join(f"'{printable(str(key))}'" for key in list(file.modules)[:SHOWN])
        raise UserError(
            f"'{file.path}' is for another model: of its {len(file.modules)} modules this one has none ({some})"
        )


def _checked_kind(file: LoraFile, module: Module) -> str:
    try:
        return kind_of(module.parts)
    except UserError as error:
        raise UserError(f"'{file.path}': '{printable(str(module.key))}': {error}") from error


def called_by_width(width: int) -> str:
    name = MODELS_OF_WIDTH.get(width)
    return f"{name} (context of width {width})" if name else f"a model with a context of width {width}"


def report_missing(file: LoraFile, missing: Sequence[Key]) -> str:
    """What of a file is not applied, by name and count."""
    names = [*map(str, missing), *file.unknown]
    shown = ", ".join(f"'{printable(name)}'" for name in names[:SHOWN])
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"'{file.path}': the model has no place for {len(names)} of its entries; not applied: {shown}{more}"


@torch.no_grad()
def merged_state(model: Any, additions: Sequence[tuple[Lora, float]]) -> dict[str, Tensor]:
    """The parameters that LoRAs change, with their new values, in the model's precision; the model stays as it is."""
    parameters = dict(model.named_parameters())
    edits = edits_of(model, additions)
    return {name: edit(parameters[name].data).to(parameters[name].dtype) for name, edit in edits.items()}

"""What learns in a run: additions, the model, or both. This is the one place that decides it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ldm.additions.base import Addition
from ldm.additions.text_adapters import TextAdapters
from ldm.modules.cpu.frozen import hold_weights, lean_where_frozen
from ldm.modules.cpu.held import computes_in
from ldm.modules.encoders.post_BERT import AdapterBERTEmbedder


@dataclass(frozen=True)
class Learning:
    """The additions that learn on a model, and whether the model learns beside them.

    Without additions the model learns. With some they alone do, and the rest is frozen, unless ``unfreeze_model`` says
    that the network and the encoder learn as well, at ``model_lr``.
    """

    additions: tuple[Addition, ...] = ()
    unfreeze_model: bool = False
    model_lr: float = 0.0

    @classmethod
    def of(cls, model: Any, unfreeze_model: bool = False, model_lr: float = 0.0) -> Learning:
        """What learns on a LatentDiffusion as it is now: its words, its encoder's adapters, and what it was given."""
        found: list[Addition] = [] if model.embedding_manager is None else [model.embedding_manager]
        encoder = model.cond_stage_model
        if isinstance(encoder, AdapterBERTEmbedder) and encoder.train_adapters:
            found.append(TextAdapters(encoder))
        return cls((*found, *model.further_additions), unfreeze_model, model_lr)

    @property
    def additions_only(self) -> bool:
        """Whether the model stays as it is."""
        return bool(self.additions) and not self.unfreeze_model

    @property
    def learned(self) -> list[nn.Parameter]:
        """The parameters of all additions."""
        return [parameter for addition in self.additions for parameter in addition.learned()]

    @property
    def own_keys(self) -> tuple[str, ...]:
        """Beginnings of the keys of all additions in the model's state dict."""
        return tuple(key for addition in self.additions for key in addition.own_keys)

    def freeze_the_rest(self, model: Any) -> None:
        """Where additions alone learn, nothing else has gradients, and what is frozen is computed in leaner layers."""
        if not self.additions_only:
            return
        model.requires_grad_(False)
        for parameter in self.learned:
            parameter.requires_grad_(True)
        model.strict_loading = False  # its checkpoints hold what learns
        lean_where_frozen(model.model)

    def set_modes(self, mode: bool) -> None:
        """Training or evaluation mode for what additions have in a model that stays in evaluation mode."""
        for addition in self.additions:
            for module in addition.modules_in_training():
                module.train(mode)

    def groups(self, rate: float, of_model: Iterable[nn.Parameter]) -> list[Any]:
        """What the optimiser changes: parameters, or groups of them with options of their own.

        Args:
            rate: the run's learning rate.
            of_model: the model's parameters that may learn; those of additions among them are left out.
        """
        ours = set(self.learned)
        others = [parameter for parameter in of_model if parameter not in ours]
        if not self.additions:
            return others
        groups = _merged([group for addition in self.additions for group in addition.parameter_groups(rate)])
        return [*groups, {"params": others, "lr": self.model_lr}] if self.unfreeze_model else groups

    def part_to_save(self, model: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What of a model's state dict a checkpoint keeps: a run for a few words does not carry the model along."""
        if not self.additions_only:
            return state
        learned = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        return {key: value for key, value in state.items() if key in learned or key.startswith(self.own_keys)}


def to_half(model: nn.Module, dtype: torch.dtype, device: torch.device) -> bool:
    """Bring the parts of a model that do not learn at all, the autoencoder aside, to a 16-bit precision.

    A CPU without kernels for it holds weights so and computes in float32.

    Returns:
        whether they are computed in it.
    """
    computed = device.type != "cpu" or computes_in(dtype)
    for name, child in model.named_children():
        if name == "first_stage_model" or any(p.requires_grad for p in child.parameters()):
            continue
        if computed:
            child.to(dtype)
        else:
            hold_weights(child, dtype)
    return computed


def _merged(groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same groups, neighbours with the same options as one."""
    merged: list[dict[str, Any]] = []
    for group in groups:
        options = {key: value for key, value in group.items() if key != "params"}
        if merged and options == {key: value for key, value in merged[-1].items() if key != "params"}:
            merged[-1]["params"] = [*merged[-1]["params"], *group["params"]]
        else:
            merged.append(dict(group))
    return merged

"""Exponential moving average of a network's weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


class LitEma(nn.Module):
    """A shadow of every trainable parameter, kept as buffers.

    The buffer of a parameter has its name without dots (``diffusion_model.out.2.bias`` ->
    ``diffusion_modelout2bias``), beside ``decay`` and ``num_updates``, as in released checkpoints.
    The decay grows with the number of updates n as min(decay, (1 + n) / (10 + n)), so that early weights are forgotten.
    """

    decay: Tensor
    num_updates: Tensor

    def __init__(self, model: nn.Module, decay: float = 0.9999, use_num_updates: bool = True) -> None:
        """Raises ValueError for a decay outside [0, 1]."""
        super().__init__()
        if not 0.0 <= decay <= 1.0:
            raise ValueError(f"decay must lie in [0, 1], got {decay}")
        start = 0 if use_num_updates else -1  # -1: the decay does not depend on the number of updates
        self.register_buffer("decay", torch.tensor(decay, dtype=torch.float32, device="cpu"))
        self.register_buffer("num_updates", torch.tensor(start, dtype=torch.int, device="cpu"))
        self._known: tuple[int, float] | None = None  # both numbers here, so that a step does not wait for a GPU's
        self.shadow_names = {
            name: name.replace(".", "") for name, parameter in model.named_parameters() if parameter.requires_grad
        }
        for name, parameter in model.named_parameters():
            if name in self.shadow_names:
                self.register_buffer(self.shadow_names[name], parameter.detach().clone())

    @torch.no_grad()
    def forward(self, model: nn.Module) -> None:
        """Move the shadows towards the current weights of ``model``."""
        count, decay = self._known or (int(self.num_updates), float(self.decay))
        if count >= 0:
            count += 1
            self.num_updates += 1
        self._known = count, decay
        if count >= 0:
            decay = min(decay, (1 + count) / (10 + count))
        parameters = dict(model.named_parameters())
        shadows = [self.get_buffer(shadow) for shadow in self.shadow_names.values()]
        current = [parameters[name].to(shadow.dtype) for name, shadow in zip(self.shadow_names, shadows, strict=True)]
        torch._foreach_lerp_(shadows, current, 1.0 - decay)

    def copy_to(self, model: nn.Module) -> None:
        """Overwrite the weights of ``model`` with the shadows."""
        parameters = dict(model.named_parameters())
        for name, shadow in self.shadow_names.items():
            parameters[name].data.copy_(self.get_buffer(shadow))

    def reset_num_updates(self) -> None:
        """Start counting anew, for instance when a finetuning begins."""
        self.num_updates.zero_()
        self._known = None

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._known = None

    @contextlib.contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Within the block ``model`` has the averaged weights; afterwards its own again."""
        parameters = dict(model.named_parameters())
        own = {name: parameters[name].detach().clone() for name in self.shadow_names}
        self.copy_to(model)
        try:
            yield
        finally:
            for name, value in own.items():
                parameters[name].data.copy_(value)

"""Values for what a checkpoint did not hold and may lack, so that nothing stays on the meta device."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ldm.checkpoint.reading import EMA_PREFIX, ema_name

logger = logging.getLogger(__name__)


def _position_ids(buffer: Tensor) -> Tensor:
    return torch.arange(buffer.shape[-1]).expand(buffer.shape).clone()


def _causal_mask(buffer: Tensor) -> Tensor:
    return torch.full(buffer.shape, float("-inf")).triu(1)


_COMPUTED: dict[str, Callable[[Tensor], Tensor]] = {"position_ids": _position_ids, "attn_mask": _causal_mask}


def materialise(module: nn.Module, place: torch.device) -> None:
    """Give values to every tensor that is still on the meta device.

    Position ids and causal masks are computed, EMA weights start as a copy of the weights, layers that can
    initialise themselves do; other parameters become zero, which is logged.

    Raises:
        RuntimeError: a constructor left a buffer without values, which only its author can set right.
    """
    averages = {ema_name(name): parameter for name, parameter in module.named_parameters()}
    for path, layer in module.named_modules():
        _reset_layer(layer, place)
        for name, tensor in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]:
            if not tensor.is_meta:
                continue
            full = f"{path}.{name}" if path else name
            value = _value(name, full, tensor, averages).to(place, tensor.dtype)
            if isinstance(tensor, nn.Parameter):
                layer.register_parameter(name, nn.Parameter(value, requires_grad=tensor.requires_grad))
            else:
                layer.register_buffer(name, value, persistent=name not in layer._non_persistent_buffers_set)


def _reset_layer(layer: nn.Module, place: torch.device) -> None:
    """Initialise a layer that has nothing loaded and knows how to begin."""
    own = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
    reset = getattr(layer, "reset_parameters", None)
    if own and callable(reset) and all(tensor.is_meta for tensor in own):
        layer.to_empty(device=place, recurse=False)
        reset()


def _value(name: str, full: str, tensor: Tensor, averages: dict[str, nn.Parameter]) -> Tensor:
    if name in _COMPUTED:
        return _COMPUTED[name](tensor)
    if full.startswith(EMA_PREFIX) and full in averages and not averages[full].is_meta:
        return averages[full].detach().clone()
    if isinstance(tensor, nn.Parameter):
        logger.warning("'%s' is not in the checkpoint and starts at zero", full)
        return torch.zeros(tensor.shape, dtype=tensor.dtype)
    raise RuntimeError(f"buffer '{full}' has no values: its constructor should make it with device='cpu'")

"""A run that comes to NaN or infinity stops at that step: before a weight takes it up, and before it is in any file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ldm.finite import broken_weight
from ldm.training.resume import ExactResume
from ldm.util import UserError


class FiniteGuard(pl.Callback):
    """Looks at every loss before it goes backward, at every gradient before its step, at weights before they are saved.

    With a gradient scaler (``precision: 16-mixed``) infinite gradients are what it works with; it leaves such steps out
    by itself. Several processes stop together, at their next step.

    Args:
        ckptdir: where the checkpoints are that the message names.
        wish: ``terminate_on_nan`` of the Trainer. False: only what is saved is looked at. True: the weights after every
            batch, too.
    """

    def __init__(self, ckptdir: str | os.PathLike[str], wish: bool | None = None) -> None:
        self.folder = Path(ckptdir)
        self.wish = wish
        self._batch: tuple[Any, int] = ({}, 0)
        self._bad_loss: str | None = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._batch = batch, batch_idx

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Raises UserError: the loss is not finite."""
        bad = loss.isnan() if scales_gradients(trainer) else ~loss.isfinite()
        if self.wish is False or not bool(bad.any()):
            return
        self._bad_loss = f"the loss is {float(loss.detach().float().sum())}"
        if trainer.world_size == 1:
            self._stop(trainer, f"{self._bad_loss}; {where_from(trainer, pl_module, *self._batch)}")

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Raises UserError: a gradient is not finite; or the loss was not, in one of several processes."""
        if self.wish is False:
            return
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        bad = not scales_gradients(trainer) and not all_finite(gradients)
        if trainer.world_size > 1:
            bad = trainer.strategy.reduce_boolean_decision(bad or self._bad_loss is not None, all=False)
        if bad:
            found = {name: p.grad for name, p in pl_module.named_parameters() if p.grad is not None}
            names = (name for name, gradient in found.items() if not all_finite([gradient]))
            where = f"the gradient of '{next(names, 'what is learned')}' is not finite"
            self._stop(trainer, self._bad_loss or where)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Raises UserError: a weight is not finite, where that is asked for."""
        if self.wish:
            self._check(trainer, dict(pl_module.named_parameters()))

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Raises UserError: what has been learned, or its average, is not finite; nothing has been written."""
        learned = {name for name, p in pl_module.named_parameters() if p.requires_grad}
        state = checkpoint["state_dict"]
        self._check(trainer, {name: state[name] for name in state if name in learned or name.startswith("model_ema.")})

    def _check(self, trainer: pl.Trainer, weights: Mapping[str, Tensor]) -> None:
        if not all_finite(weights.values()):
            name = next(name for name, weight in weights.items() if not all_finite([weight]))
            self._stop(trainer, f"the weight '{name}' is not finite after the step")

    def _stop(self, trainer: pl.Trainer, what: str) -> None:
        last = self.folder / "last.ckpt"
        kept = f"the last good checkpoint is '{last}'" if last.exists() else "no checkpoint had been written"
        raise UserError(f"training stopped at step {trainer.global_step}: {what}; {kept}")


def scales_gradients(trainer: pl.Trainer) -> bool:
    """Whether a gradient scaler is at work, for which infinite gradients are nothing unusual."""
    return getattr(trainer.strategy.precision_plugin, "scaler", None) is not None


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all values of all tensors (of floats, on any devices) are numbers; asked of a device once."""
    own = (t.to_local() if isinstance(t, DTensor) else t.detach() for t in tensors)  # of weights in parts, this share
    floats = [t for t in own if t.is_floating_point() and t.numel()]
    return not floats or bool(torch.nn.utils.get_total_norm(floats, norm_type=float("inf")).isfinite())


def where_from(trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> str:
    """Where the first value that is no number comes from: a weight, the batch, or a submodule, in words."""
    weight = broken_weight(module)
    if weight is not None:
        return f"the weight '{weight}' is not finite"
    items = batch.items() if isinstance(batch, Mapping) else ()
    for key, value in items:
        if isinstance(value, Tensor) and not all_finite([value]):
            return f"the batch holds such values under '{key}'"
    found = first_bad_module(trainer, module, batch, batch_idx)
    return f"the first value that is not finite comes out of {found}" if found else "no submodule gives such values"


class _FoundError(Exception):
    """The batch need not be looked at any further."""


def first_bad_module(trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> str | None:
    """The first submodule with an output that is not finite, when the step is done once more with the same draws.

    The module can only be thrown away afterwards: it logs nothing any more, and does not go backward.
    """
    names = {child: name for name, child in module.named_modules() if name}
    found: list[str] = []

    def look(child: nn.Module, inputs: Any, output: Any) -> None:
        outputs = output if isinstance(output, (tuple, list)) else [output]
        if not all_finite(one for one in outputs if isinstance(one, Tensor)):
            found.append(f"'{names[child]}' ({type(child).__name__})")
            raise _FoundError

    def no_more(*_: Any, **__: Any) -> None:
        raise _FoundError

    hooks = [child.register_forward_hook(look) for child in names]
    for name, instead in (("log", _ignore), ("log_dict", _ignore), ("manual_backward", no_more)):
        setattr(module, name, instead)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, ExactResume):
            callback.on_train_batch_start(trainer, module, batch, batch_idx)
    try:
        with contextlib.suppress(Exception), torch.no_grad(), trainer.strategy.precision_plugin.train_step_context():
            module.training_step(batch, batch_idx)
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def _ignore(*_: Any, **__: Any) -> None:
    """Stands in for a log."""

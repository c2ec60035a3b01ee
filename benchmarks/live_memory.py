"""How much memory the tensors of a training step take, counted from their shapes: nothing is computed.

So a step in a precision that a machine does not compute in can be looked at, and without what an allocator holds back.
The kernels are those of a CPU; what they take for themselves is not seen.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.textual_inversion_common import Draws, Side


class LiveMemory(TorchDispatchMode):
    """The bytes of all tensors made within the block that are alive, ``now``, and the most there were, ``peak``."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._see(value.untyped_storage())
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


def live_mb(build: Callable[[], Side]) -> tuple[float, float]:
    """Before a step and at its peak, without the optimiser's moments; in MB of 2^20 bytes, as the other benchmarks."""
    stays = mock.patch.object(nn.Module, "to", lambda module, *_, **__: module)  # weights without values cannot move
    with FakeTensorMode(), LiveMemory() as memory, stays:
        side = build()
        learned = [p for group in side.optimizer.param_groups for p in group["params"]]
        side.optimizer = torch.optim.SGD(learned, lr=1e-4)  # AdamW reads the value of its counter
        gc.collect()
        before, memory.peak = memory.now, 0
        side.step(Draws.of_step(0, side.size))
    return before / 2**20, memory.peak / 2**20

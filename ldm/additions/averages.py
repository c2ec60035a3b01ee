"""Exponential moving averages of additions that learn."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from ldm.additions.base import Addition
from ldm.modules.ema import LitEma


class Averages:
    """An average of each addition that learns, over steps, from what its first step left.

    What learns is not touched. An addition that does not learn for now, or has nothing to learn, has no average but is
    as it is, for that is what the others learn beside; where it begins to learn again, its average begins anew.

    Args:
        decay: how much of an average stays in a step; less in the first ones, see ``LitEma``.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self._averages: dict[str, LitEma] = {}  # by the names of files

    def update(self, additions: Sequence[Addition]) -> None:
        """After a step."""
        for addition in additions:
            name, learned = addition.file_name, addition.learned()
            if not learned or not all(parameter.requires_grad for parameter in learned):
                self._averages.pop(name, None)
                continue
            if name not in self._averages:
                self._averages[name] = self._begun(addition)
            self._averages[name](_module(addition))

    def has(self, addition: Addition) -> bool:
        """Whether there is an average of it."""
        return addition.file_name in self._averages

    @contextlib.contextmanager
    def applied(self, additions: Sequence[Addition]) -> Iterator[None]:
        """Within the block additions are their averages; afterwards they are as they were, bit for bit."""
        with contextlib.ExitStack() as undone:
            for addition in additions:
                if self.has(addition):
                    undone.enter_context(self._averages[addition.file_name].applied(_module(addition)))
            yield

    def state_dict(self) -> dict[str, Any]:
        return {name: average.state_dict() for name, average in self._averages.items()}

    def restore(self, additions: Sequence[Addition], state: Mapping[str, Any]) -> None:
        """Go on with the averages of a ``state_dict``, from now on with the decay that is asked for."""
        for addition in additions:
            if addition.file_name in state:
                average = self._averages[addition.file_name] = self._begun(addition)
                average.load_state_dict(state[addition.file_name])
                average.decay.fill_(self.decay)

    def _begun(self, addition: Addition) -> LitEma:
        return LitEma(_module(addition), self.decay)


def _module(addition: Addition) -> nn.Module:
    return nn.ParameterList(addition.learned())

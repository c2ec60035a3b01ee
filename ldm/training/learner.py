"""What a run asks a model: which additions learn on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from ldm.additions.base import Addition


class Learns(Protocol):
    """What learns in a run."""

    @property
    def additions(self) -> Sequence[Addition]: ...


@runtime_checkable
class Learner(Protocol):
    """A model that says what learns on it."""

    @property
    def learning(self) -> Learns: ...


def learned_by(pl_module: object) -> Sequence[Addition]:
    """The additions that learn on a model; none on one that knows none."""
    return pl_module.learning.additions if isinstance(pl_module, Learner) else ()

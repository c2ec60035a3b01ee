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


@runtime_checkable
class Begins(Protocol):
    """A model that says which of its keys no file to start from has: those of what has yet to be learned."""

    @property
    def fresh_keys(self) -> tuple[str, ...]: ...


def fresh_in(pl_module: object) -> tuple[str, ...]:
    """Beginnings of the keys that nobody misses in weights to start from."""
    return pl_module.fresh_keys if isinstance(pl_module, Begins) else ()


def learned_by(pl_module: object) -> Sequence[Addition]:
    """The additions that learn on a model; none on one that knows none."""
    return pl_module.learning.additions if isinstance(pl_module, Learner) else ()

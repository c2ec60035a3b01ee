"""Additions: what can be put on a model for a while, or be learned on top of it. Words and text adapters are such.

An addition says what of it learns and how fast, which keys of a model's state dict are its own, and how it is written
to a file. ``applied`` puts some on a model within a ``with`` block, and leaves the model as it was, bit for bit.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from ldm.util import UserError

Undo = Callable[[], None]


class Addition(ABC):
    """Something on top of a model, with parameters of its own.

    Attributes:
        file_name: the files that a run leaves begin with this.
        step_suffix: of the files that are written from time to time.
        last_suffixes: of those that are written at the end.
        own_keys: beginnings of the keys that it has in a model's state dict, where it is learned with the model.
        rate: its learning rate as a multiple of the run's.
        changes_text: whether what the text encoder makes of a prompt changes with what is learned.
    """

    file_name: ClassVar[str]
    step_suffix: ClassVar[str] = ".safetensors"
    last_suffixes: ClassVar[tuple[str, ...]] = (".safetensors",)
    own_keys: ClassVar[tuple[str, ...]] = ()
    rate: float = 1.0
    changes_text: bool = True

    @abstractmethod
    def learned(self) -> Sequence[nn.Parameter]:
        """The parameters that learn."""

    def modules_in_training(self) -> Sequence[nn.Module]:
        """Modules that are in training mode in a run, while the model around them is not (for dropout)."""
        return ()

    def parameter_groups(self, rate: float) -> list[dict[str, Any]]:
        """What learns as an optimiser takes it; a group without ``lr`` learns at the run's ``rate``."""
        group: dict[str, Any] = {"params": list(self.learned())}
        if not group["params"]:
            return []
        return [group if self.rate == 1 else group | {"lr": self.rate * rate}]

    @abstractmethod
    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
        """Write it to a file that a person can carry.

        Raises:
            UserError: it cannot be written.
        """

    @abstractmethod
    def attach(self, model: Any, scale: float = 1.0) -> Undo:
        """Put it on a model, which is a LatentDiffusion; what is returned takes exactly that off again.

        Several are taken off in the opposite order, which ``applied`` sees to. ``scale`` is how much of it there is: 0
        for nothing, 1 for what was learned.

        Raises:
            UserError: it was made for another model, or a scale means nothing to it. The model is then as it was.
        """

    @classmethod
    def attach_together(cls, model: Any, additions: Sequence[tuple[Any, float]]) -> Undo:
        """Put several of this class on a model, each with its scale: one after another, unless a kind says otherwise.

        Raises:
            UserError: as ``attach``. The model is then as it was.
        """
        with contextlib.ExitStack() as undone:
            for addition, scale in additions:
                undone.callback(addition.attach(model, scale))
            return undone.pop_all().close


@contextlib.contextmanager
def applied(model: Any, additions: Sequence[Addition], scales: Sequence[float] | None = None) -> Iterator[None]:
    """Within the block the model has these additions; afterwards it is as it was before, bit for bit.

    That is the state dict, the classes of its modules, attributes, hooks, ``requires_grad`` and training modes. Blocks
    nest: an inner one adds to what an outer one has put on.

    Args:
        model: a LatentDiffusion.
        additions: put on from first to last.
        scales: how much of each; 1 for all where not given.

    Raises:
        UserError: an addition does not fit the model, or there is another number of scales. The model is as it was.
    """
    wanted = [1.0] * len(additions) if scales is None else list(scales)
    if len(wanted) != len(additions):
        raise UserError(f"there are {len(additions)} additions, but {len(wanted)} scales; give each its own")
    with contextlib.ExitStack() as undone:
        for kind, group in itertools.groupby(zip(additions, wanted, strict=True), key=lambda pair: type(pair[0])):
            undone.callback(kind.attach_together(model, list(group)))
        yield


def replace_module(parent: nn.Module, name: str, module: nn.Module | None) -> Undo:
    """Put another module (or none) in the place of a child, which may be None itself; what is returned puts it back.

    Keys stay in their order, and an attribute that is no child becomes a plain attribute again.
    """
    plain = parent.__dict__.get(name) if name in parent.__dict__ else None
    was_child = name in parent._modules
    before = parent._modules.get(name) if was_child else plain

    def undo() -> None:
        if was_child:
            parent._modules[name] = before
        else:
            parent._modules.pop(name, None)
            parent.__dict__[name] = before

    setattr(parent, name, module)
    return undo


def edit_weights(module: nn.Module, edits: Mapping[str, Callable[[Tensor], Tensor]]) -> Undo:
    """Change weights of a module for a while, without changing its parameters' identity.

    Args:
        module: whose ``named_parameters`` they are.
        edits: name -> what makes the new values of the old, which it must not change in place; same shape.

    Returns:
        What puts the very tensors back that were there.

    Raises:
        UserError: a name that is none, or values of another shape. Nothing has been changed then.
    """
    parameters = dict(module.named_parameters())
    unknown = next((name for name in edits if name not in parameters), None)
    if unknown is not None:
        raise UserError(f"the model has no weight '{unknown}' to change")
    before = {name: parameters[name].data for name in edits}
    after = {name: edit(before[name]).to(before[name]) for name, edit in edits.items()}
    for name, value in after.items():
        if value.shape != before[name].shape:
            had, has = list(before[name].shape), list(value.shape)
            raise UserError(f"the weight '{name}' is {had}, but what is to replace it {has}")

    def put(values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            parameters[name].data = value

    put(after)
    return lambda: put(before)

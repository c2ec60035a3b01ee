"""What a model is conditioned on besides a prompt, in words that a command can say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ldm.util import UserError

# what a condition is made of besides prompts -> the command that has it, where the names alone say so
COMMANDS = {
    (): "txt2img.py",
    ("image", "mask"): "scripts/inpaint.py",
    ("low_res",): "scripts/superresolution.py",
    ("class_label",): "scripts/class2img.py",
}


@dataclass(frozen=True)
class Need:
    """One thing that a condition is made of: the keyword of ``model.condition``, and what it is.

    ``channels`` are those of a picture [B, channels, H, W]; None where it is no picture.
    """

    name: str
    what: str
    channels: int | None = None
    instead: str | None = None  # another keyword that does as well


@dataclass(frozen=True)
class Needs:
    """All that a model's condition is made of besides the prompts; false where prompts are enough.

    Attributes:
        required, optional: what ``model.condition`` must and may get.
        reads_prompts: whether the prompts change anything.
        command: the program that takes it all; None: the usual one for these names, if there is one.
    """

    required: tuple[Need, ...] = ()
    optional: tuple[Need, ...] = ()
    reads_prompts: bool = True
    command: str | None = None

    def __bool__(self) -> bool:
        return bool(self.required)

    @property
    def program(self) -> str | None:
        """The program for models like this one, such as "scripts/inpaint.py"; None where there is none."""
        return self.command or COMMANDS.get(tuple(sorted(need.name for need in self.required)))

    @property
    def sentence(self) -> str:
        """What the model needs and what takes it, for a person who gave a prompt only."""
        if not self:
            return "this model needs nothing but a prompt"
        things = " and ".join(f"'{need.name}' ({need.what})" for need in self.required)
        keywords = ", ".join(f"{need.name}=..." for need in self.required)
        function = f"model.condition(prompts, size=..., {keywords})"
        taker = f"no command, but the function {function}"
        if self.program is not None:
            taker = f"python {self.program}, or the function {function}"
        besides = "besides the prompt" if self.reads_prompts else "in place of a prompt"
        return f"this model needs {things} {besides}; what takes it: {taker}"

    def check(self, given: Mapping[str, Any]) -> None:
        """Raises UserError when something that is needed is not among ``given``, is no such thing, or is not known."""
        missing = [need for need in self.required if need.name not in given and need.instead not in given]
        if missing:
            raise UserError(f"the condition lacks '{missing[0].name}': {self.sentence}")
        every = (*self.required, *self.optional)
        known = {need.name for need in every} | {need.instead for need in every if need.instead is not None}
        for need in every:
            value = given.get(need.name)
            is_picture = isinstance(value, Tensor) and value.dim() == 4 and value.shape[1] == need.channels
            if need.name in given and need.channels is not None and not is_picture:
                got = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise UserError(f"'{need.name}' must be {need.what}; got {got}")
        unknown = [name for name in given if name not in known]
        if unknown:
            takes = ", ".join(sorted(known)) or "prompts alone"
            raise UserError(f"this model's condition has no '{unknown[0]}'; it takes: {takes}")

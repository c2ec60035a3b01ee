"""Nothing as a condition: what pictures are inverted and restyled under, where no prompt is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True, eq=False)
class EmptyPrompt:
    """The condition [1, ...] of no text for latents of any size; each is encoded once.

    A model that is told sizes (Stable Diffusion XL) is told those of the picture, uncropped, and of the text what
    guidance leads away from: zeros, where it has learned them as nothing. All others have one condition, the text "".
    """

    model: Any
    _made: dict[tuple[int, int] | None, Any] = field(default_factory=dict)

    @property
    def is_sized(self) -> bool:
        """Whether the model is told sizes."""
        return any(need.name == "original_size" for need in self.model.needs.optional)

    def at(self, size: tuple[int, int]) -> Any:
        """The condition for latents of a size (height, width)."""
        key = size if self.is_sized else None
        if key not in self._made:
            text = self.model.condition([""], size=key)
            self._made[key] = text if key is None else self.model.unconditional(text)
        return self._made[key]


def context_for(context: Any, latents: Tensor) -> Any:
    """What latents [B, C, h, w] are seen under: the empty prompt at their size, or a condition as it is."""
    return context.at((latents.shape[-2], latents.shape[-1])) if isinstance(context, EmptyPrompt) else context

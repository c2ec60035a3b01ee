"""What a frozen text encoder makes of prompts, kept for the next time that they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

LIMIT = 10_000  # prompts; beyond it the oldest are forgotten (77 x 768 numbers of one take 0.2 MB in float32)


class TextStates:
    """The states of each prompt, computed once; an encoder that gives anything but states is asked each time.

    Each prompt is encoded by itself, so that its states do not depend on what came with it.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self.known: dict[str, Tensor] = {}

    def __call__(self, encode: Callable[[Sequence[str]], Tensor], prompts: str | Sequence[str]) -> Tensor:
        """States [B, N, D] of B prompts, or of one."""
        prompts = [prompts] if isinstance(prompts, str) else prompts
        for prompt in prompts:
            if prompt not in self.known:
                with torch.no_grad():
                    states = encode([prompt])
                if not isinstance(states, Tensor) or states.shape[0] != 1:
                    return encode(prompts)
                self.known[prompt] = states[0]
        found = torch.stack([self.known[prompt] for prompt in prompts])
        while len(self.known) > self.limit:
            self.known.pop(next(iter(self.known)))
        return found

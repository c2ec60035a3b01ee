"""States of prompts that are kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ldm.models.diffusion.text_states import TextStates


def encode(prompts: Sequence[str]) -> Tensor:
    return torch.tensor([[[float(len(prompt))] * 2] * 3 for prompt in prompts])


def test_one_prompt_or_several_and_those_that_came_before() -> None:
    asked: list[str] = []

    def counted(prompts: Sequence[str]) -> Tensor:
        asked.extend(prompts)
        return encode(prompts)

    states = TextStates(limit=2)
    assert torch.equal(states(counted, "a cat"), encode(["a cat"]))
    assert torch.equal(states(counted, ["a", "a cat", "a"]), encode(["a", "a cat", "a"])) and asked == ["a cat", "a"]
    states(counted, ["dogs"])  # one too many: the oldest is forgotten
    assert list(states.known) == ["a", "dogs"]


def test_what_gives_no_states_is_asked_each_time() -> None:
    states = TextStates()
    assert states(lambda prompts: len(prompts), ["a", "b"]) == 2 and not states.known  # type: ignore[arg-type,return-value]

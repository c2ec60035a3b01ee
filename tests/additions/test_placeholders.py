"""Expanding placeholders among tokens and filling in their vectors, against the obvious way to do it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ldm.additions.placeholders import expansion, fill, spread


def one_by_one(row: list[int], counts: dict[int, int]) -> list[tuple[int, int, int]]:
    """(token, column it comes from, slot) of every position, as a person would write it down."""
    out = []
    for column, token in enumerate(row):
        out += [(token, column, slot) for slot in range(counts.get(token, 1))]
    return out[: len(row)]


@pytest.mark.parametrize("seed", range(20))
def test_expansion_is_what_writing_it_down_gives(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 6, (3, 9), generator=generator)
    counts = {1: 3, 4: 2, 5: 1}
    source, slot = expansion(tokens, counts)
    for row in range(3):
        expected = one_by_one(tokens[row].tolist(), counts)
        assert tokens[row][source[row]].tolist() == [e[0] for e in expected]
        assert source[row].tolist() == [e[1] for e in expected]
        assert slot[row].tolist() == [e[2] for e in expected]


def test_filling_changes_nothing_that_it_was_given_and_has_gradients_in_the_vectors_alone() -> None:
    tokens = torch.tensor([[9, 1, 2, 1, 7]])
    embedded = torch.arange(10.0).reshape(1, 5, 2)
    before = tokens.clone(), embedded.clone()
    vectors = torch.tensor([[100.0, 0.0], [200.0, 0.0]], requires_grad=True)
    new_tokens, filled = fill(tokens, embedded, {1: vectors})
    assert torch.equal(tokens, before[0]) and torch.equal(embedded, before[1])
    assert new_tokens.tolist() == [[9, 1, 1, 2, 1]], "the second occurrence is cut at the end of the row"
    assert filled[0, :, 0].tolist() == [0.0, 100.0, 200.0, 4.0, 100.0]
    filled.sum().backward()
    assert vectors.grad is not None and vectors.grad[:, 0].tolist() == [2.0, 1.0]


def test_rows_without_a_placeholder_stay() -> None:
    tokens, embedded = torch.tensor([[3, 4, 5]]), torch.randn(1, 3, 4, dtype=torch.bfloat16)
    new_tokens, filled = fill(tokens, embedded, {1: torch.randn(2, 4)})
    assert torch.equal(new_tokens, tokens) and torch.equal(filled, embedded) and filled.dtype is torch.bfloat16


def vectors(*values: float) -> Tensor:
    return torch.tensor(values)[:, None]


def test_a_word_of_several_pieces_is_spread_in_order_or_averaged() -> None:
    assert spread(vectors(5.0), 3).flatten().tolist() == [5.0, 5.0, 5.0]
    assert spread(vectors(1.0, 2.0), 4).flatten().tolist() == [1.0, 1.0, 2.0, 2.0]
    assert spread(vectors(1.0, 2.0, 6.0), 1).flatten().tolist() == [3.0]
    assert spread(vectors(1.0, 3.0, 5.0, 7.0), 2).flatten().tolist() == [2.0, 6.0]

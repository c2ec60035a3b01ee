"""Matrices of small networks in bytes: how near they come back, and what stays as it is."""

from __future__ import annotations

import torch

from ldm.modules.byte_weights import BLOCK, from_bytes, in_bytes


def test_matrices_come_back_to_about_half_a_step_of_their_block() -> None:
    matrix = torch.randn(5, BLOCK + 6) * torch.logspace(-6, 3, 5)[:, None]
    matrix[2, 3] *= 1000
    stored = in_bytes({"a.weight": matrix})
    assert stored["a.weight"].dtype == torch.int8 and stored["a.weight"].shape == matrix.shape
    assert stored["a.weight.scale"].shape == (5, 2)
    back = from_bytes(stored)
    assert list(back) == ["a.weight"] and back["a.weight"].dtype == torch.float32
    for block in (slice(0, BLOCK), slice(BLOCK, None)):  # the scale's own rounding may cut the largest by a 256th
        step = matrix[:, block].abs().amax(1, keepdim=True) / 127
        assert ((back["a.weight"] - matrix)[:, block].abs() <= 0.51 * step).all()
    assert torch.equal(from_bytes(in_bytes({"a": torch.zeros(2, 3)}))["a"], torch.zeros(2, 3))


def test_all_else_stays() -> None:
    weights = {"bias": torch.randn(4).bfloat16(), "count": torch.tensor(3), "table": torch.arange(6).reshape(2, 3)}
    stored = in_bytes(weights)
    assert stored.keys() == weights.keys()
    assert all(torch.equal(stored[name], weights[name]) for name in weights)
    assert stored["bias"].dtype == torch.bfloat16
    plain = {"a.weight": torch.randn(2, 3)}
    assert from_bytes(plain) == plain, "files of before had no bytes"

"""Matrices of small networks in bytes: how near they come back, and what stays as it is."""

from __future__ import annotations

from pathlib import Path

import torch

from ldm.checkpoint import read_state_dict, save_state_dict
from ldm.checkpoint.byte_weights import BLOCK, from_bytes, in_bytes


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


def test_kernels_have_scales_for_a_row_of_all_that_an_output_sees(tmp_path: Path) -> None:
    kernel = torch.randn(6, 10, 3, 3)
    stored = in_bytes({"a.weight": kernel, "a.bias": torch.ones(6)})
    assert stored["a.weight"].shape == kernel.shape and stored["a.weight.scale"].shape == (6, 2)
    save_state_dict(stored, tmp_path / "a.safetensors")
    back = read_state_dict(tmp_path / "a.safetensors")
    assert set(back) == {"a.weight", "a.bias"} and back["a.weight"].shape == kernel.shape
    step = kernel.flatten(1).abs().amax(1)[:, None, None, None] / 127
    assert ((back["a.weight"] - kernel).abs() <= 0.51 * step).all()


def test_pickles_are_as_they_are(tmp_path: Path) -> None:
    """One number under many names could ask for any amount of memory."""
    stored = in_bytes({"a.weight": torch.randn(3, 70)})
    torch.save(stored, tmp_path / "a.pt")
    assert read_state_dict(tmp_path / "a.pt")["a.weight"].dtype == torch.int8


def test_bytes_of_others_stay_bytes(tmp_path: Path) -> None:
    whole, scale = torch.ones(4, 100, dtype=torch.int8), torch.ones(4, 2).bfloat16()
    others = {
        "a": whole, "a.scale": scale[:, 0], "b": whole, "b.scale": scale[:, :1], "c": whole[0],
        "c.scale": torch.ones(100, 1).bfloat16(), "d": whole.float(), "d.scale": scale, "e": whole, "f.scale": scale,
        "g": whole[:, :0], "g.scale": scale[:, :0], "h": whole, "h.scale": scale.half(), "i": whole, "i.scale": scale.T,
    }  # fmt: skip
    others = {name: value.contiguous() for name, value in others.items()}
    assert from_bytes(others) == others
    save_state_dict(others, tmp_path / "a.safetensors")
    assert all(torch.equal(value, others[name]) for name, value in read_state_dict(tmp_path / "a.safetensors").items())

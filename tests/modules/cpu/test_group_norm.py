"""The quick gradient of group normalisation against PyTorch's."""

from __future__ import annotations

import pytest
import torch

from ldm.modules.cpu import group_norm
from ldm.modules.cpu.group_norm import GroupNorm


def gradients(norm: torch.nn.GroupNorm, x: torch.Tensor, pull: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = norm(x)
    return [y, *torch.autograd.grad(y, [x, norm.weight, norm.bias], pull)]


@pytest.mark.parametrize("channels", [32, 96])
def test_gradients_are_those_of_pytorch_within_bfloat16(channels: int) -> None:
    torch.manual_seed(0)
    ours, theirs = GroupNorm(32, channels, eps=1e-6), torch.nn.GroupNorm(32, channels, eps=1e-6)
    torch.nn.init.normal_(ours.weight, 1.0, 0.3)
    torch.nn.init.normal_(ours.bias)
    theirs.load_state_dict(ours.state_dict())
    x = (torch.randn(3, channels, 8, 12) * 2 + 1).bfloat16().contiguous(memory_format=torch.channels_last)
    pull = torch.randn(3, channels, 8, 12).bfloat16().contiguous(memory_format=torch.channels_last)
    expected = gradients(theirs, x.float(), pull.float())
    actual = gradients(ours, x, pull)
    assert actual[1].dtype is torch.bfloat16 and actual[2].dtype is torch.float32
    for got, want in zip(actual, expected, strict=True):
        assert (got.float() - want).norm() < 0.01 * want.norm()


def test_the_quick_way_is_taken_for_bfloat16_channels_last_only(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[torch.dtype] = []
    own = group_norm._GroupNorm.apply

    def watched(x: torch.Tensor, *rest: object) -> torch.Tensor:
        calls.append(x.dtype)
        return own(x, *rest)

    monkeypatch.setattr(group_norm._GroupNorm, "apply", watched)
    norm = GroupNorm(32, 32)
    x = torch.randn(1, 32, 4, 4).contiguous(memory_format=torch.channels_last)
    norm(x)
    with torch.no_grad():
        norm(x.bfloat16())
    assert calls == []
    norm(x.bfloat16())
    assert calls == [torch.bfloat16]


def test_float32_is_exactly_pytorchs() -> None:
    x = torch.randn(2, 64, 5, 7)
    norm = GroupNorm(32, 64)
    assert torch.equal(norm(x), torch.nn.functional.group_norm(x, 32, norm.weight, norm.bias, norm.eps))

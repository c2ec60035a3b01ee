"""Attention in strips against PyTorch's, in double precision."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ldm.modules.attention import scaled_dot_product_attention
from ldm.modules.cpu import strips as cpu_attention
from ldm.modules.cpu.strips import attention_in_strips


def heads(b: int, h: int, n: int, d: int, size: float = 1.0) -> torch.Tensor:
    return (size * torch.randn(b, n, h, d)).bfloat16().transpose(1, 2)


def error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Root mean square difference, in units of the expected values."""
    return float((actual.double() - expected).square().mean().sqrt() / expected.square().mean().sqrt())


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize(("h", "n", "d", "m"), [(8, 300, 40, 300), (3, 600, 64, 256), (1, 256, 160, 700)])
def test_same_as_exact(h: int, n: int, d: int, m: int, scale: float | None) -> None:
    torch.manual_seed(0)
    q, k, v = heads(2, h, n, d), heads(2, h, m, d), heads(2, h, m, d)
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double(), scale=scale)
    actual = attention_in_strips(q, k, v, scale=scale)
    assert actual.shape == exact.shape
    assert actual.dtype is torch.bfloat16
    assert error(actual, exact) < 0.02


def test_strips_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    q, k, v = heads(1, 5, 500, 40), heads(1, 5, 256, 40), heads(1, 5, 256, 40)
    whole = attention_in_strips(q, k, v)
    monkeypatch.setattr(cpu_attention, "ROWS", 96)
    monkeypatch.setattr(cpu_attention, "LOGITS", 2 * 96 * 256)
    torch.testing.assert_close(attention_in_strips(q, k, v), whole, rtol=0.02, atol=0.005)


def test_large_logits() -> None:
    """All logits of a query are far from zero and near each other, where bfloat16 alone could not tell them apart."""
    torch.manual_seed(0)
    q, k, v = heads(1, 2, 256, 40), heads(1, 2, 256, 40), heads(1, 2, 256, 40)
    q[..., 0], k[..., 0] = 16.0, 32.0  # adds 80 to every logit
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    assert error(attention_in_strips(q, k, v), exact) < 0.02


def test_used_where_it_pays_and_only_without_gradient() -> None:
    torch.manual_seed(0)
    q, k, v = heads(1, 2, 256, 40), heads(1, 2, 256, 40), heads(1, 2, 256, 40)
    fused = F.scaled_dot_product_attention(q.float(), k.float(), v.float()).bfloat16()
    assert torch.equal(scaled_dot_product_attention(q.clone().requires_grad_(), k, v), fused)
    with torch.no_grad():
        assert torch.equal(scaled_dot_product_attention(q, k, v), attention_in_strips(q, k, v))
        few = F.scaled_dot_product_attention(q, k[:, :, :77], v[:, :, :77])
        assert torch.equal(scaled_dot_product_attention(q, k[:, :, :77], v[:, :, :77]), few)
        wide = F.scaled_dot_product_attention(q.float(), k.float(), v.float())
        assert torch.equal(scaled_dot_product_attention(q.float(), k.float(), v.float()), wide)

"""Attention as a function value: what stands in ``attend`` decides, and nothing else changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ldm.modules.attention import AttentionBlock, CrossAttention, scaled_dot_product_attention
from tests.helpers import noted


def explicit(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, scale: float | None = None) -> torch.Tensor:
    """Attention written out, in float64."""
    q, k, v = q.double(), k.double(), v.double()
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    return torch.einsum("bhnm,bhmd->bhnd", (factor * torch.einsum("bhnd,bhmd->bhnm", q, k)).softmax(-1), v)


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("width", [8, 40])
def test_plain_attention_is_the_written_out_formula(scale: float | None, width: int) -> None:
    q, k, v = torch.randn(2, 3, 6, width), torch.randn(2, 3, 9, width), torch.randn(2, 3, 9, width)
    result = scaled_dot_product_attention(q, k, v, scale=scale)
    torch.testing.assert_close(result.double(), explicit(q, k, v, scale=scale), rtol=1e-4, atol=1e-5)


def test_half_precision_gradients_are_those_of_the_formula() -> None:
    q, k, v = (torch.randn(2, 2, 5, 16).bfloat16().requires_grad_() for _ in range(3))
    weight = torch.randn(2, 2, 5, 16)
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda _: kept.pop(0)):
        result = scaled_dot_product_attention(q, k, v)
        assert [t.data_ptr() for t in kept] == [t.data_ptr() for t in (q, k, v)], "and nothing in float32"
    (result.float() * weight).sum().backward()
    exact = [t.detach().double().requires_grad_() for t in (q, k, v)]
    (explicit(*exact) * weight.double()).sum().backward()
    for half, full in zip((q, k, v), exact, strict=True):
        assert half.grad is not None
        torch.testing.assert_close(half.grad.double(), full.grad, rtol=0.05, atol=0.02)


def test_another_function_can_stand_in_and_leaves_no_trace() -> None:
    layer = CrossAttention(16, context_dim=12, heads=2, dim_head=8).eval()
    x, context = torch.randn(2, 5, 16), torch.randn(2, 7, 12)
    plain, keys = layer(x, context), set(layer.state_dict())
    seen = []

    def first_value(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, scale: float | None = None) -> torch.Tensor:
        seen.append((q.shape, k.shape, v.shape))
        return v[:, :, :1].expand_as(q)

    layer.attend = first_value
    changed = layer(x, context)
    assert seen == [((2, 2, 5, 8), (2, 2, 7, 8), (2, 2, 7, 8))]
    torch.testing.assert_close(changed, layer.to_out(layer.to_v(context)[:, :1]).expand_as(changed))
    assert set(layer.state_dict()) == keys

    del layer.attend
    assert torch.equal(layer(x, context), plain)


def test_one_key_is_the_answer_everywhere_and_a_mode_is_still_asked() -> None:
    """A context of one token, such as the first frame of a film: the quick way without a gradient is the long one."""
    torch.manual_seed(0)
    layer: Any = CrossAttention(16, context_dim=12, heads=2, dim_head=8).eval()
    x, context = torch.randn(2, 5, 16), torch.randn(2, 1, 12)
    long_way = layer(x, context)
    assert long_way.requires_grad
    asked: list[torch.Size] = []
    with torch.no_grad():
        torch.testing.assert_close(layer(x, context), long_way)
        layer.to_q.register_forward_hook(lambda *_: pytest.fail("a query that says nothing was computed"))
        layer(x, context)
        layer.to_q._forward_hooks.clear()
        layer.attend = lambda q, k, v, *, scale=None: noted(asked, q.shape) and torch.zeros_like(q)
        assert not torch.allclose(layer(x, context), long_way) and asked == [(2, 2, 5, 8)]


def test_the_seam_is_there_without_a_transformer_too() -> None:
    block = AttentionBlock(32, num_heads=4).eval()
    torch.nn.init.normal_(block.proj_out.weight)
    x = torch.randn(2, 32, 4, 4)
    plain = block(x)
    block.attend = lambda q, k, v, *, scale=None: torch.zeros_like(q)
    assert torch.allclose(block(x), x)
    del block.attend
    assert torch.equal(block(x), plain)
